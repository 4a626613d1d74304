// The collectives of NCCL's stand-in: a star of sockets around rank 0, which receives all parts and
// sends the whole back. The name of the socket is the unique id.
#include <nccl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "emulator/runtime.h"
#include "emulator/simt.h"

namespace kshot::simt::api {

struct Nccl {
  int rank = 0, ranks = 1;
  std::vector<int>
      /// sockets: rank 0 has one to each other rank, by rank; the others have one, to rank 0
      peers;
  std::atomic<int> error{ncclSuccess};
  ~Nccl() {
    for (const int peer : peers) {
      if (peer >= 0) ::close(peer);
    }
  }
};

namespace {

bool send_all(int socket, const void* data, std::size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = ::send(socket, at, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
    bytes -= static_cast<std::size_t>(sent);
  }
  return true;
}

bool receive_all(int socket, void* data, std::size_t bytes) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::recv(socket, at, bytes, 0);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<std::size_t>(got);
  }
  return true;
}

// Device memory is poisoned for the host's code (memory.h), so the address sanitizer is off here.
[[gnu::no_sanitize("address")]] void copy(double* to, const double* from, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] = from[i];
}

bool gather(Nccl& comm, std::vector<double>& all, std::size_t count) {
  const std::size_t bytes = count * sizeof(double);
  if (comm.rank != 0) {
    const int root = comm.peers[0];
    return send_all(root, all.data() + static_cast<std::size_t>(comm.rank) * count, bytes) &&
           receive_all(root, all.data(), all.size() * sizeof(double));
  }
  for (int r = 1; r < comm.ranks; ++r) {
    double* const part = all.data() + static_cast<std::size_t>(r) * count;
    if (!receive_all(comm.peers[static_cast<std::size_t>(r)], part, bytes)) return false;
  }
  for (int r = 1; r < comm.ranks; ++r) {
    if (!send_all(comm.peers[static_cast<std::size_t>(r)], all.data(),
                  all.size() * sizeof(double))) {
      return false;
    }
  }
  return true;
}

/// The sends and receives of a thread's open group, one per peer.
struct Group {
  bool open = false;
  ncclComm_t comm = nullptr;
  cudaStream_t stream{};
  std::size_t count = 0;
  std::map<int, const double*> sends;
  std::map<int, double*> receives;
};
thread_local Group group;

template <class Pointer>
ncclResult_t collect(std::map<int, Pointer>& buffers, Pointer buffer, std::size_t count,
                     ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  if (!group.open) return ncclInvalidUsage;
  if (comm == nullptr || type != ncclFloat64 || peer < 0 || peer >= comm->ranks) {
    return ncclInvalidArgument;
  }
  if (group.comm == nullptr) {
    group.comm = comm;
    group.stream = stream;
    group.count = count;
  }
  const bool same = group.comm == comm && group.stream == stream && group.count == count;
  if (!same || !buffers.emplace(peer, buffer).second) return ncclInvalidUsage;
  return ncclSuccess;
}

sockaddr_un address_of(const ncclUniqueId& id) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // the name ends with a zero
  std::memcpy(address.sun_path, id.internal, sizeof address.sun_path - 1);
  return address;
}

}  // namespace

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    default:
      return "unhandled system error";
  }
}

ncclResult_t ncclGetVersion(int* version) {
  *version = 0;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  *id = {};
  std::string name = "/tmp/kshot-nccl-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) return ncclSystemError;
  name += "/socket";
  std::memcpy(id->internal, name.c_str(), name.size() + 1);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  if (ranks < 1 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  auto made = std::make_unique<Nccl>();
  made->rank = rank;
  made->ranks = ranks;
  const sockaddr_un address = address_of(id);
  const auto* const name = reinterpret_cast<const sockaddr*>(&address);
  const int own = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (own < 0) return ncclSystemError;
  if (rank != 0) {
    made->peers = {own};
    for (int tries = 0; ::connect(own, name, sizeof address) != 0; ++tries) {
      if (tries == 3000) return ncclSystemError;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    if (!send_all(own, &rank, sizeof rank)) return ncclSystemError;
    int begin = 0;
    if (!receive_all(own, &begin, sizeof begin)) return ncclSystemError;
    *comm = made.release();
    return ncclSuccess;
  }
  made->peers.assign(static_cast<std::size_t>(ranks), -1);
  made->peers[0] = own;
  if (::bind(own, name, sizeof address) != 0 || ::listen(own, ranks) != 0) return ncclSystemError;
  for (int i = 1; i < ranks; ++i) {
    const int peer = ::accept(own, nullptr, nullptr);
    int who = 0;
    if (peer < 0 || !receive_all(peer, &who, sizeof who)) return ncclSystemError;
    if (who < 1 || who >= ranks) return ncclInvalidArgument;
    made->peers[static_cast<std::size_t>(who)] = peer;
  }
  for (int i = 1; i < ranks; ++i) {
    if (!send_all(made->peers[static_cast<std::size_t>(i)], &i, sizeof i)) return ncclSystemError;
  }
  ::unlink(address.sun_path);
  std::string folder = address.sun_path;
  ::rmdir(folder.substr(0, folder.rfind('/')).c_str());
  *comm = made.release();
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = static_cast<ncclResult_t>(comm->error.load());
  return ncclSuccess;
}

ncclResult_t ncclAllGather(const void* mine, void* all, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  if (comm == nullptr || type != ncclFloat64) return ncclInvalidArgument;
  const auto work = [=] {
    if (settings().sticky_error != 0) return;  // a device that is lost does not take part
    const std::size_t bytes = count * sizeof(double);
    require_device("NCCL, send buffer", mine, bytes, true, false);
    require_device("NCCL, receive buffer", all, bytes * static_cast<std::size_t>(comm->ranks),
                   false, true);
    std::vector<double> values(count * static_cast<std::size_t>(comm->ranks));
    copy(values.data() + static_cast<std::size_t>(comm->rank) * count,
         static_cast<const double*>(mine), count);
    if (!gather(*comm, values, count)) comm->error = ncclRemoteError;
    copy(static_cast<double*>(all), values.data(), values.size());
  };
  return enqueue(stream, work) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclGroupStart() {
  if (group.open) return ncclInvalidUsage;
  group = {};
  group.open = true;
  return ncclSuccess;
}

ncclResult_t ncclSend(const void* mine, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return collect(group.sends, static_cast<const double*>(mine), count, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void* theirs, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return collect(group.receives, static_cast<double*>(theirs), count, type, peer, comm, stream);
}

ncclResult_t ncclGroupEnd() {
  if (!group.open) return ncclInvalidUsage;
  const Group done = std::exchange(group, {});
  if (done.comm == nullptr) return ncclSuccess;
  const auto ranks = static_cast<std::size_t>(done.comm->ranks);
  if (done.sends.size() != ranks || done.receives.size() != ranks) return ncclInvalidUsage;
  const auto work = [done, ranks] {
    if (settings().sticky_error != 0) return;
    const std::size_t bytes = done.count * sizeof(double);
    const auto own = static_cast<std::size_t>(done.comm->rank);
    // Every rank receives all that the ranks send to each other, and takes its own part.
    std::vector<double> values(ranks * ranks * done.count);
    for (const auto& [peer, from] : done.sends) {
      require_device("NCCL, send buffer", from, bytes, true, false);
      copy(values.data() + (own * ranks + static_cast<std::size_t>(peer)) * done.count, from,
           done.count);
    }
    if (!gather(*done.comm, values, ranks * done.count)) done.comm->error = ncclRemoteError;
    for (const auto& [peer, to] : done.receives) {
      require_device("NCCL, receive buffer", to, bytes, false, true);
      copy(to, values.data() + (static_cast<std::size_t>(peer) * ranks + own) * done.count,
           done.count);
    }
  };
  return enqueue(done.stream, work) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

}  // namespace kshot::simt::api
