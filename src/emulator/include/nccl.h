// Stand-in for NCCL's header of this name: the collectives that the backend uses, between processes
// of one machine, in the order of a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace kshot::simt::api {

enum ncclResult_t : int {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6,
  ncclInProgress = 7,
};
enum ncclDataType_t : int { ncclFloat64 = 8 };
struct ncclUniqueId {
  char internal[128];
};
struct Nccl;
using ncclComm_t = Nccl*;

const char* ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclGetVersion(int* version);
ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
/// Returns after every rank has called it.
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
/// Writes the error of the enqueued collectives.
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error);
ncclResult_t ncclAllGather(const void* mine, void* all, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream);

/// Between these two calls of a thread, sends and receives are collected. ncclGroupEnd enqueues
/// them. The stand-in supports one kind of group: one send to and one receive from every rank, all
/// of one size.
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void* mine, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclRecv(void* theirs, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream);

}  // namespace kshot::simt::api

using namespace kshot::simt::api;  // NOLINT(google-build-using-namespace)
