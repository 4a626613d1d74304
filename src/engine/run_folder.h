// The folder that a training run leaves behind.
#pragma once

#include <filesystem>
#include <string>

#include "engine/assembly.h"
#include "engine/checkpoint.h"

namespace kshot {

/// Creates the folder (and those above). Throws Error where it cannot be, and where it holds a run
/// already. A task store without a checkpoint is no run: a training that was killed while it began
/// has left it, and the new one replaces it.
void create_run_folder(const std::filesystem::path& folder);

/// Removes the temporary files that a killed training has left in its run folder. Only this process
/// may be training in it.
void clean_run_folder(const std::filesystem::path& folder);

/// Writes run.json: versions, seed, device, machine, command, start. With `resumed_at` that file is
/// kept and the session is added to its list.
void write_run_record(const std::filesystem::path& folder, const Assembly& assembly,
                      const SourceInfo& source, const std::string& command,
                      const std::uint64_t* resumed_at);

}  // namespace kshot
