// The ranks of MPI's world. A build without MPI has none.
#pragma once

#include <memory>

#include "kshot/communicator.h"

namespace kshot {

/// Whether MPI is initialized in this process and not yet finalized.
bool mpi_initialised();
/// Returns the ranks of MPI's world, and initializes MPI if necessary. Every call returns the same
/// object until a rank fails. After that it returns a new object, and all ranks must make this
/// call. Null where the world has one process.
std::shared_ptr<Communicator> open_mpi();

}  // namespace kshot
