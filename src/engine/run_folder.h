// The folder that a training run leaves behind.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "engine/assembly.h"
#include "engine/checkpoint.h"

namespace kshot {

/// A training's lock on its run folder, so that no other training writes there. It is an advisory
/// lock of the system (flock) on a file in the folder. It ends with the process, however that ends.
class RunLock {
 public:
  /// Takes the lock of a folder that exists. Throws Error where another training holds it, which
  /// may be one of this process.
  explicit RunLock(std::filesystem::path folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// The path of the file `name` of a run, which is named by its folder or by one of its checkpoints.
std::filesystem::path file_of_run(const std::filesystem::path& run, const std::string& name);

/// Creates the folder (and those above) and locks it. Throws Error where it cannot be created,
/// where a training runs in it, and where it holds a run already. Of several callers at the same
/// time, one succeeds. A task store or a record without a checkpoint is no run: a training that was
/// killed while it began has left it, and the new one replaces it.
std::unique_ptr<RunLock> create_run_folder(const std::filesystem::path& folder);
/// Removes the files that a training writes, and the folder where nothing else is in it. This is
/// for a run that failed before its first step was done, so that the same command can be given
/// again.
void remove_run(const std::filesystem::path& folder);

/// Removes the temporary files that a killed training has left in its run folder. Only this process
/// may be training in it.
void clean_run_folder(const std::filesystem::path& folder);

/// The folder of a training for which the user names none: runs/NAME, or the first of runs/NAME-2,
/// runs/NAME-3, ... that is free. The constructor creates it, so that each of several trainings
/// that begin together has its own folder. The destructor removes the folder where it is still
/// empty.
class DefaultRunFolder {
 public:
  /// Throws Error where the folder cannot be created.
  explicit DefaultRunFolder(const std::filesystem::path& name);
  ~DefaultRunFolder();
  DefaultRunFolder(const DefaultRunFolder&) = delete;
  DefaultRunFolder& operator=(const DefaultRunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool created_parent_ = false;
};

/// The record of one session of training.
struct Session {
  std::string command = {};
  std::optional<std::uint64_t> resumed_at = {};
  /// True where the run was resumed with another data file than its own, which the user allowed.
  bool changed_data = false;
};
/// Writes run.json: versions, seed, device, machine, command, data file, start. Where the session
/// resumes a run, the file is kept and the session is added to its list.
void write_run_record(const std::filesystem::path& folder, const Assembly& assembly,
                      const SourceInfo& source, const Session& session);

}  // namespace kshot
