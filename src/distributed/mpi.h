// The ranks of MPI's world. Without MPI in the build there are none.
#pragma once

#include <memory>

#include "kshot/communicator.h"

namespace kshot {

/// Whether this process has initialised MPI already, and not ended it.
bool mpi_initialised();
/// MPI's world, which is initialised where it is not yet; the same object at every call, until a
/// rank has failed: then a new one, for which all ranks must call this. Null where the world has
/// one process.
std::shared_ptr<Communicator> open_mpi();

}  // namespace kshot
