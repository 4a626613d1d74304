// Which launcher has started this process, by the variables that it sets.
#pragma once

#include <functional>
#include <string>

namespace kshot {

/// How this process was started.
struct Launch {
  std::string launcher;  ///< "mpirun", "srun", "torchrun"; empty: by itself
  int size = 1;          ///< processes that were started together, as far as the launcher says so
  bool mpi = false;      ///< the launcher is one that MPI knows
  int rank = 0;          ///< of this process among them
};

/// `get` returns the value of an environment variable, or null.
Launch detect_launch(const std::function<const char*(const char*)>& get);

}  // namespace kshot
