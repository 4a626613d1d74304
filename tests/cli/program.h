// Runs the kshot program as a user does.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace kshot::test {

inline std::string slurp(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

/// A running kshot process. Its output goes to files in `folder`, which is also its working folder.
class Program {
 public:
  Program(const std::filesystem::path& folder, const std::vector<std::string>& arguments,
          const std::string& stdout_file = "stdout.txt",
          const std::string& stderr_file = "stderr.txt")
      : out_(folder / stdout_file), error_(folder / stderr_file) {
    if (stdout_file.starts_with('/')) out_ = stdout_file;
    std::vector<std::string> words = {KSHOT_CLI};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("cannot fork");
    if (pid_ == 0) {
      const int out = ::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      const int error = ::open(error_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      if (out < 0 || error < 0 || ::chdir(folder.c_str()) != 0) ::_exit(126);
      ::dup2(out, 1);
      ::dup2(error, 2);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
  }
  ~Program() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void signal(int number) const { ::kill(pid_, number); }
  /// Returns the exit status, or -n where signal n ended the process.
  int wait() {
    int status = 0;
    if (pid_ > 0) ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string out() const { return slurp(out_); }
  std::string error() const { return slurp(error_); }

 private:
  std::filesystem::path out_, error_;
  pid_t pid_ = -1;
};

struct Outcome {
  int status;
  std::string out, error;
};

inline Outcome run(const std::filesystem::path& folder, const std::vector<std::string>& arguments) {
  Program program(folder, arguments);
  const int status = program.wait();
  return {status, program.out(), program.error()};
}

}  // namespace kshot::test
