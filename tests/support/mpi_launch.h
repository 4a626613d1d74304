// How tests start several ranks: by the launcher of the MPI that this build has (Open MPI or
// MPICH). The launcher of another MPI would start every rank alone.
#pragma once

#include <filesystem>
#include <string>

#include "kshot/communicator.h"

namespace kshot::test {

/// Why no ranks can be started here; empty where they can.
inline std::string no_ranks_because() {
  if (mpi_library().empty()) return "this build has no MPI";
  if (!std::filesystem::exists(KSHOT_MPIEXEC)) return "no mpiexec here";
  return {};
}

/// Whether this build's MPI is Open MPI. Otherwise it is MPICH.
inline bool has_open_mpi() {
  return mpi_library().starts_with("Open MPI");
}

/// A shell command that starts ranks; `rest` is what follows the launcher's name ("-n 2 program").
/// It may take `seconds`. The sanitizers' leak check would report MPI's own memory.
inline std::string start_ranks(int seconds, const std::string& rest) {
  std::string command = "ASAN_OPTIONS=detect_leaks=0 ", options;
  if (has_open_mpi()) {  // MPICH starts more ranks than cores without asking
    command += "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ";
    options = "--oversubscribe ";
  }
  return command + "timeout -k 5 " + std::to_string(seconds) + " '" KSHOT_MPIEXEC "' " + options +
         rest;
}

/// The shell's expression for a rank's number.
inline constexpr const char* rank_variable = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}";

}  // namespace kshot::test
