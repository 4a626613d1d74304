// The functions of mpi.h in a build without MPI (KSHOT_MPI).
#include "distributed/mpi.h"

namespace kshot {

bool mpi_initialised() {
  return false;
}

std::shared_ptr<Communicator> open_mpi() {
  return nullptr;
}

std::string mpi_library() {
  return {};
}

}  // namespace kshot
