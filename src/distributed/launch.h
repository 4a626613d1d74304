// Detects the launcher that started this process, by the environment variables that it sets.
#pragma once

#include <functional>
#include <string>

namespace kshot {

/// How this process was started.
struct Launch {
  std::string launcher;  ///< "mpirun", "srun", "torchrun"; empty: none
  /// Number of processes that were started together, as far as the launcher says.
  int size = 1;
  /// The launcher is one that MPI knows.
  bool mpi = false;
  int rank = 0;  ///< rank of this process among them
  /// The launcher offers MPI a way to find the other processes (PMIx or PMI).
  bool offers_pmi = true;
};

/// Detects the launch of this process. `get` returns the value of an environment variable, or null.
Launch detect_launch(const std::function<const char*(const char*)>& get);

}  // namespace kshot
