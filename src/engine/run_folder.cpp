#include "engine/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "io/atomic_file.h"
#include "io/json_text.h"
#include "io/system_error.h"
#include "kshot/error.h"
#include "kshot/version.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// The current time as ISO 8601, UTC.
std::string now_text() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

constexpr const char* lock_file = "run.lock";
constexpr std::array run_files = {last_checkpoint, best_checkpoint, config_file,
                                  metrics_file,    memory_file,     run_file};

/// Names of the files in the folder that a training of this process writes.
std::vector<std::string> names_of_run(const fs::path& folder) {
  std::error_code ignored;
  std::vector<std::string> names;
  for (const char* name : run_files) {
    if (fs::exists(folder / name, ignored)) names.emplace_back(name);
  }
  // Another program's events may be in the folder. The names of this process's events end with its
  // process number.
  const std::string process = "." + std::to_string(::getpid());
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    std::string name = entry.path().filename().string();
    const bool ours = name.starts_with("events.out.tfevents.") && name.ends_with(process);
    if (ours || (is_memory_file(name) && name != memory_file)) {
      names.push_back(std::move(name));
    }
  }
  return names;
}

/// True where kshot wrote the file of this name, or began to. A training that was killed before its
/// first checkpoint leaves such files, and the next one replaces them.
bool is_written_by_kshot(const fs::path& file, const std::string& name) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return false;
  std::string text(4096, '\0');
  std::ifstream in(file, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (name == run_file) {
    return text.starts_with("{\n  \"algorithm\": ") &&
           text.find("\n  \"sessions\": [") != std::string::npos;
  }
  if (is_memory_file(name)) return text.starts_with("kshotrow");
  return text.find_first_not_of("0123456789\n") == std::string::npos;  // the lock
}

/// True where a training, of this process or another, holds the lock.
bool is_locked(const fs::path& folder) {
  const int descriptor = ::open((folder / lock_file).c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool locked = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(descriptor);
  return locked;
}

[[noreturn]] void throw_locked(const fs::path& folder) {
  std::string holder;
  std::ifstream(folder / lock_file) >> holder;
  throw Error(
      fmt::format("run folder {}: another training is running in it{}; wait for its end, or "
                  "choose another folder",
                  folder.string(), holder.empty() ? "" : fmt::format(" (process {})", holder)));
}

/// Throws Error where the folder holds a run, or a file of another program in the place of one.
/// `ours` says that this process holds the lock.
void check_free(const fs::path& folder, bool ours) {
  std::error_code ignored;
  for (const char* name : {last_checkpoint, best_checkpoint, config_file, metrics_file}) {
    if (!fs::exists(folder / name, ignored)) continue;
    if (!ours && is_locked(folder)) throw_locked(folder);
    throw Error(
        fmt::format("run folder {} already holds a run ({}): resume it, or choose another folder",
                    folder.string(), name));
  }
  for (const char* name : {run_file, memory_file, lock_file}) {
    if (!fs::exists(fs::symlink_status(folder / name, ignored))) continue;
    if (is_written_by_kshot(folder / name, name)) continue;
    throw Error(
        fmt::format("run folder {} holds {}, which kshot did not write: choose another folder, or "
                    "move the file away",
                    folder.string(), name));
  }
}

}  // namespace

RunLock::RunLock(fs::path folder) {
  const fs::path path = folder / lock_file;
  for (;;) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) {
      throw Error(fmt::format("cannot write run folder {}: {}", folder.string(),
                              std::generic_category().message(errno)));
    }
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      const int code = errno;
      ::close(std::exchange(descriptor_, -1));
      if (code == EINTR) continue;
      if (code == EWOULDBLOCK) throw_locked(folder);
      log_warning(fmt::format(
          "run folder {}: its file system has no locks ({}); take care that no other training "
          "writes there",
          folder.string(), std::generic_category().message(code)));
      return;
    }
    // A run that failed at its start removes its files, and the lock file with them. The lock
    // counts only if it is on the file that other processes see.
    struct stat held {
    }, seen{};
    if (::fstat(descriptor_, &held) == 0 && ::stat(path.c_str(), &seen) == 0 &&
        held.st_ino == seen.st_ino && held.st_dev == seen.st_dev) {
      break;
    }
    ::close(std::exchange(descriptor_, -1));
  }
  const std::string holder = std::to_string(::getpid()) + "\n";  // for messages only
  (void)!::ftruncate(descriptor_, 0);
  (void)!::pwrite(descriptor_, holder.data(), holder.size(), 0);
}

RunLock::~RunLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

fs::path file_of_run(const fs::path& run, const std::string& name) {
  std::error_code ignored;
  return (fs::is_directory(run, ignored) ? run : run.parent_path()) / name;
}

std::unique_ptr<RunLock> create_run_folder(const fs::path& folder) {
  check_free(folder, false);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw Error(fmt::format("cannot create run folder {}: {}", folder.string(), error.message()));
  }
  if (!fs::is_directory(folder, error)) {
    throw Error(fmt::format("cannot create run folder {}: it is a file", folder.string()));
  }
  auto lock = std::make_unique<RunLock>(folder);
  check_free(folder, true);  // a run may have begun and ended in the meantime
  clean_run_folder(folder);
  return lock;
}

DefaultRunFolder::DefaultRunFolder(const fs::path& name) {
  const fs::path base = fs::path("runs") / name;
  std::error_code error;
  created_parent_ = fs::create_directories(base.parent_path(), error);
  path_ = base;
  for (int i = 2; ::mkdir(path_.c_str(), 0777) != 0; ++i) {
    if (errno != EEXIST) {
      throw Error(fmt::format("cannot create run folder {}: {}", path_.string(),
                              std::generic_category().message(errno)));
    }
    path_ = base;
    path_ += fmt::format("-{}", i);
  }
}

DefaultRunFolder::~DefaultRunFolder() {
  std::error_code ignored;
  fs::remove(path_, ignored);  // only where it is empty
  if (created_parent_) fs::remove(path_.parent_path(), ignored);
}

void remove_run(const fs::path& folder) {
  std::error_code ignored;
  for (const std::string& name : names_of_run(folder)) fs::remove(folder / name, ignored);
  fs::remove(folder / lock_file, ignored);
  fs::remove(folder, ignored);  // only where it is empty
}

void clean_run_folder(const fs::path& folder) {
  for (const char* name :
       {last_checkpoint, best_checkpoint, config_file, metrics_file, run_file, memory_file}) {
    io::remove_leftovers(folder / name);
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (is_memory_file(entry.path().filename().string())) io::remove_leftovers(entry.path());
  }
}

void write_run_record(const fs::path& folder, const Assembly& assembly, const SourceInfo& source,
                      const Session& session) {
  using nlohmann::ordered_json;
  ordered_json entry = {
      {"start", now_text()},
      {"kshot", version()},
      {"compiler", __VERSION__},
      {"command", session.command},
      {"device", device_text(*assembly.backend)},
      {"threads", assembly.backend->concurrency()},
      {"processor", processor()},
      {"processor_threads", std::thread::hardware_concurrency()},
      {"from_step", session.resumed_at.value_or(0)},
  };
  if (source.data) {
    entry["data"] = {{"path", source.data->path},
                     {"checksum", source.data->checksum},
                     {"split", source.data->split},
                     {"changed", session.changed_data}};
  }
  ordered_json record;
  if (session.resumed_at) {
    try {
      record = io::parse_json<ordered_json>(io::read_file(folder / run_file));
    } catch (const nlohmann::json::exception&) {  // the old record is not needed: begin a new list
    } catch (const Error&) {
    }
  }
  if (!record.is_object() || !record.contains("sessions") || !record["sessions"].is_array()) {
    std::size_t parameters = 0;
    for (const ParameterGroup& group : assembly.algorithm->groups()) parameters += group.size;
    record = {{"algorithm", assembly.algorithm->name()},
              {"seed", assembly.config.seed},
              {"network_weights", assembly.network->size()},
              {"meta_parameters", parameters},
              {"episodes", source.description},
              {"sessions", ordered_json::array()}};
  }
  record["sessions"].push_back(entry);
  // A path in the command need not be UTF-8 text.
  io::write_file_atomic(folder / run_file,
                        record.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace kshot
