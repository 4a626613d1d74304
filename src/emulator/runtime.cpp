// The emulator's CUDA runtime. This is one file although it is long: all of its functions work on
// one state (streams, events, graphs, memory) under one lock.
#include "emulator/runtime.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "emulator/machine.h"
#include "emulator/memory.h"
#include "emulator/simt.h"

namespace kshot::simt {
namespace api {

using Work = std::function<void()>;

// A captured graph: its work, which cudaGraphLaunch runs in order.
struct Graph {
  std::vector<Work> work;          // in the order of the capture, which respects every dependency
  std::vector<std::string> kinds;  // kind of each work: a kernel's name, "copy", ...
};
struct GraphExec {
  std::shared_ptr<const Graph> graph;
};

namespace {

// A capture in progress.
struct Capture {
  Stream* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;  // the thread that began the capture
  Graph graph;
  std::set<Stream*> streams;   // streams that take part
  std::set<Stream*> unjoined;  // streams with work that the origin does not wait for yet
  bool invalid = false;
};

}  // namespace

// A stream: work that waits, and the numbers of works that were enqueued and finished.
struct Stream {
  bool blocking = true;  // waits for the default stream, and the default stream waits for it
  std::deque<Work> queue;
  std::uint64_t enqueued = 0, finished = 0;
  std::shared_ptr<Capture> capture;
};

// An event: it has happened when its stream has finished `ticket` works.
struct Event {
  bool timing = true;
  Stream* stream = nullptr;  // the stream that it was recorded on; null: never recorded
  std::uint64_t ticket = 0;
  std::shared_ptr<Capture> capture;
  std::shared_ptr<std::chrono::steady_clock::time_point> time;
};

struct MemPool {};

namespace {

// The state of the emulated runtime.
struct Runtime {
  std::recursive_mutex mutex;
  Stream default_stream;
  std::set<Stream*> streams{&default_stream};
  std::vector<std::shared_ptr<Capture>> captures;
  std::map<const void*, int> dynamic_limits;
  cudaError_t last = cudaSuccess;
  int device = 0;
  MemPool pool;
  std::exception_ptr pending;  // a report that arose in a destructor, which may not throw
};

Runtime& runtime() {
  static Runtime instance;
  return instance;
}

using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t note(cudaError_t error) {
  if (error != cudaSuccess) runtime().last = error;
  return error;
}

// Every call begins here: returns the error of a device that is lost or missing, or of a driver
// that is too old.
cudaError_t ready() {
  if (runtime().pending) std::rethrow_exception(std::exchange(runtime().pending, nullptr));
  const Settings& s = settings();
  if (s.sticky_error) return static_cast<cudaError_t>(s.sticky_error);
  if (s.driver_version < 13000) return cudaErrorInsufficientDriver;
  if (s.devices < 1) return cudaErrorNoDevice;
  return cudaSuccess;
}

// Calls that a capture does not allow invalidate it (Programming Guide, "Prohibited and Unhandled
// Operations").
cudaError_t not_while_capturing() {
  cudaError_t result = cudaSuccess;
  for (const auto& capture : runtime().captures) {
    if (capture->mode == cudaStreamCaptureModeRelaxed) continue;
    if (capture->mode == cudaStreamCaptureModeThreadLocal &&
        capture->thread != std::this_thread::get_id()) {
      continue;
    }
    capture->invalid = true;
    result = cudaErrorStreamCaptureUnsupported;
  }
  return result;
}

#define KSHOT_READY()               \
  const Lock lock(runtime().mutex); \
  if (const cudaError_t error = ready(); error != cudaSuccess) return note(error)
#define KSHOT_READY_NOT_CAPTURING() \
  KSHOT_READY();                    \
  if (const cudaError_t error = not_while_capturing(); error != cudaSuccess) return note(error)

Stream& get(cudaStream_t stream) {
  Stream* found = stream ? stream : &runtime().default_stream;
  if (!runtime().streams.contains(found)) throw Failure("a stream that was destroyed is used");
  return *found;
}

void drain(Stream& stream, std::uint64_t ticket) {
  while (stream.finished < ticket && !stream.queue.empty()) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    ++stream.finished;
    try {
      work();
    } catch (...) {  // reported once; the work that was to follow does not run
      for (Stream* each : runtime().streams) {
        each->queue.clear();
        each->finished = each->enqueued;
      }
      throw;
    }
  }
}

void drain(Stream& stream) {
  drain(stream, stream.enqueued);
}

void drain_all(bool blocking_only) {
  for (Stream* stream : runtime().streams) {
    if (stream->blocking || !blocking_only) drain(*stream);
  }
}

// Waits, for functions that destructors call. A report is kept for the next call that may throw.
cudaError_t drain_quietly() {
  try {
    drain_all(false);
  } catch (const Failure&) {
    runtime().pending = std::current_exception();
    return note(cudaErrorLaunchFailure);
  }
  return cudaSuccess;
}

cudaError_t submit(Stream& stream, std::string kind, Work work) {
  if (stream.capture) {
    if (stream.capture->invalid) return note(cudaErrorStreamCaptureInvalidated);
    stream.capture->graph.kinds.push_back(std::move(kind));
    stream.capture->graph.work.push_back(std::move(work));
    if (&stream != stream.capture->origin) stream.capture->unjoined.insert(&stream);
    return cudaSuccess;
  }
  if (&stream == &runtime().default_stream) {
    if (const cudaError_t error = not_while_capturing(); error != cudaSuccess) return note(error);
    drain_all(true);
  } else if (stream.blocking) {
    drain(runtime().default_stream);
  }
  stream.queue.push_back(std::move(work));
  ++stream.enqueued;
  if (!settings().lazy) drain(stream);
  return cudaSuccess;
}

bool is_pinned(const void* pointer, std::size_t bytes) {
  std::string why;
  const Object* object = memory().find(pointer, bytes, why);
  return object && object->host;
}

void check_copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = memory().is_device(to), from_device = memory().is_device(from);
  const bool right =
      kind == cudaMemcpyDefault ||
      (to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
       from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice));
  if (!right) {
    throw Failure(fmt::format("cudaMemcpy: from {} to {} memory is not the kind that was said",
                              from_device ? "device" : "host", to_device ? "device" : "host"));
  }
  if (from_device) require_device("cudaMemcpy (source)", from, bytes, false, false);
  if (to_device) require_device("cudaMemcpy (destination)", to, bytes, false, false);
}

// Copies the bytes, and on the device also which of them have been written.
void copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  std::string why;
  Object* target = memory().is_device(to) ? memory().find(to, bytes, why) : nullptr;
  const Object* source = memory().is_device(from) ? memory().find(from, bytes, why) : nullptr;
  if (!why.empty()) throw Failure("cudaMemcpy: " + why);
  raw_copy(to, from, bytes);
  if (memory().is_device(to) && !memory().is_device(from)) {
    mutable_counters().bytes_to_device += bytes;
  } else if (memory().is_device(from) && !memory().is_device(to)) {
    mutable_counters().bytes_to_host += bytes;
  }
  if (!target) return;
  const auto out = reinterpret_cast<std::uintptr_t>(to);
  const auto in = reinterpret_cast<std::uintptr_t>(from);
  if (!source || Memory::first_unwritten(*source, in, bytes) == bytes) {
    Memory::mark_written(*target, out, bytes);
    return;
  }
  for (std::size_t i = 0; i < bytes; ++i) {
    if (Memory::first_unwritten(*source, in + i, 1) == 1) Memory::mark_written(*target, out + i, 1);
  }
}

}  // namespace

// ---- errors ----

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define KSHOT_NAME(name) \
  case name:             \
    return #name
    KSHOT_NAME(cudaSuccess);
    KSHOT_NAME(cudaErrorInvalidValue);
    KSHOT_NAME(cudaErrorMemoryAllocation);
    KSHOT_NAME(cudaErrorInitializationError);
    KSHOT_NAME(cudaErrorInvalidConfiguration);
    KSHOT_NAME(cudaErrorInsufficientDriver);
    KSHOT_NAME(cudaErrorNoDevice);
    KSHOT_NAME(cudaErrorInvalidDevice);
    KSHOT_NAME(cudaErrorInvalidResourceHandle);
    KSHOT_NAME(cudaErrorNotReady);
    KSHOT_NAME(cudaErrorIllegalAddress);
    KSHOT_NAME(cudaErrorLaunchFailure);
    KSHOT_NAME(cudaErrorNotSupported);
    KSHOT_NAME(cudaErrorStreamCaptureUnsupported);
    KSHOT_NAME(cudaErrorStreamCaptureInvalidated);
    KSHOT_NAME(cudaErrorStreamCaptureUnmatched);
    KSHOT_NAME(cudaErrorStreamCaptureUnjoined);
    KSHOT_NAME(cudaErrorGraphExecUpdateFailure);
    KSHOT_NAME(cudaErrorUnknown);
#undef KSHOT_NAME
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return cudaGetErrorName(error);
  }
}

cudaError_t cudaGetLastError() {
  const Lock lock(runtime().mutex);
  return std::exchange(runtime().last, static_cast<cudaError_t>(settings().sticky_error));
}

cudaError_t cudaPeekAtLastError() {
  const Lock lock(runtime().mutex);
  return runtime().last;
}

// ---- devices ----

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  KSHOT_READY();
  *count = settings().devices;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  KSHOT_READY();
  *device = runtime().device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  KSHOT_READY();
  if (device < 0 || device >= settings().devices) return note(cudaErrorInvalidDevice);
  runtime().device = device;
  return cudaSuccess;
}

// The limits are those of an H100 (compute capability 9.0).
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  KSHOT_READY();
  if (device < 0 || device >= settings().devices) return note(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated device");
  properties->totalGlobalMem = settings().memory;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = 227 << 10;
  properties->sharedMemPerMultiprocessor = 228 << 10;
  properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->maxBlocksPerMultiProcessor = 32;
  properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
  properties->maxThreadsDim[2] = 64;
  properties->maxGridSize[0] = 0x7fffffff;
  properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
  properties->major = settings().compute_capability / 10;
  properties->minor = settings().compute_capability % 10;
  properties->multiProcessorCount = 132;
  properties->l2CacheSize = 50 << 20;
  properties->memoryBusWidth = 5120;
  properties->concurrentKernels = 1;
  properties->asyncEngineCount = 3;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device); error != cudaSuccess) {
    return error;
  }
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(p.sharedMemPerBlock);
      break;
    case cudaDevAttrWarpSize:
      *value = p.warpSize;
      break;
    case cudaDevAttrClockRate:  // kHz
      *value = 1980000;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrMemoryClockRate:
      *value = 2619000;
      break;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = p.memoryBusWidth;
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().driver_version;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  KSHOT_READY_NOT_CAPTURING();
  ++mutable_counters().host_waits;
  drain_all(false);
  return cudaSuccess;
}

cudaError_t cudaDeviceReset() {
  return cudaDeviceSynchronize();
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  KSHOT_READY();
  *total = settings().memory;
  *free = *total - std::min(*total, memory().used());
  return cudaSuccess;
}

// ---- streams ----

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  KSHOT_READY();
  auto made = std::make_unique<Stream>();
  made->blocking = !(flags & cudaStreamNonBlocking);
  runtime().streams.insert(made.get());
  *stream = made.release();
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (!stream || !runtime().streams.contains(stream)) return note(cudaErrorInvalidResourceHandle);
  const std::unique_ptr<Stream> owned(stream);
  const cudaError_t error = drain_quietly();
  runtime().streams.erase(stream);
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  KSHOT_READY();
  Stream& s = get(stream);
  if (s.capture) {
    s.capture->invalid = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  ++mutable_counters().host_waits;
  if (!stream) drain_all(true);
  drain(s);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  KSHOT_READY();
  const Stream& s = get(stream);
  return s.finished == s.enqueued ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  KSHOT_READY();
  return submit(get(stream), "host", [=] { function(argument); });
}

// ---- events ----

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  KSHOT_READY();
  auto made = std::make_unique<Event>();
  made->timing = !(flags & cudaEventDisableTiming);
  *event = made.release();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  const std::unique_ptr<Event> owned(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  KSHOT_READY();
  Stream& s = get(stream);
  event->stream = &s;
  event->capture = s.capture;
  event->time = std::make_shared<std::chrono::steady_clock::time_point>();
  if (s.capture) return cudaSuccess;
  const cudaError_t error =
      submit(s, "event", [time = event->time] { *time = std::chrono::steady_clock::now(); });
  event->ticket = s.enqueued;
  return error;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  KSHOT_READY();
  Stream& s = get(stream);
  if (!event->stream) return cudaSuccess;  // never recorded: nothing to wait for
  if (event->capture) {
    // A capture includes every stream that waits for it, and ends where it began.
    Capture& capture = *event->capture;
    if (s.capture && s.capture != event->capture) return note(cudaErrorInvalidValue);
    s.capture = event->capture;
    capture.streams.insert(&s);
    capture.unjoined.erase(event->stream);
    if (&s != capture.origin) capture.unjoined.insert(&s);
    return cudaSuccess;
  }
  if (s.capture) return note(cudaErrorStreamCaptureUnsupported);
  Stream* other = event->stream;
  return submit(s, "event", [other, ticket = event->ticket] {
    if (runtime().streams.contains(other)) drain(*other, ticket);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  KSHOT_READY();
  if (event->capture) return note(cudaErrorStreamCaptureUnsupported);
  ++mutable_counters().host_waits;
  if (event->stream && runtime().streams.contains(event->stream)) {
    drain(*event->stream, event->ticket);
  }
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  KSHOT_READY();
  if (event->capture) return note(cudaErrorStreamCaptureUnsupported);
  const bool done = !event->stream || !runtime().streams.contains(event->stream) ||
                    event->stream->finished >= event->ticket;
  return done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  KSHOT_READY();
  if (!start->timing || !stop->timing || !start->stream || !stop->stream) {
    return note(cudaErrorInvalidResourceHandle);
  }
  if (cudaEventQuery(start) != cudaSuccess || cudaEventQuery(stop) != cudaSuccess) {
    return note(cudaErrorNotReady);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*stop->time - *start->time).count();
  return cudaSuccess;
}

// ---- graphs ----

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  KSHOT_READY();
  if (!stream) return note(cudaErrorStreamCaptureUnsupported);
  Stream& s = get(stream);
  if (s.capture) return note(cudaErrorInvalidValue);
  s.capture = std::make_shared<Capture>();
  s.capture->origin = &s;
  s.capture->mode = mode;
  s.capture->thread = std::this_thread::get_id();
  s.capture->streams.insert(&s);
  runtime().captures.push_back(s.capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  KSHOT_READY();
  Stream& s = get(stream);
  *graph = nullptr;
  const std::shared_ptr<Capture> capture = s.capture;
  if (!capture || capture->origin != &s) return note(cudaErrorStreamCaptureUnmatched);
  for (Stream* member : capture->streams) member->capture.reset();
  std::erase(runtime().captures, capture);
  if (capture->invalid) return note(cudaErrorStreamCaptureInvalidated);
  if (!capture->unjoined.empty()) return note(cudaErrorStreamCaptureUnjoined);
  *graph = new Graph(std::move(capture->graph));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  KSHOT_READY();
  const auto& capture = get(stream).capture;
  *status = !capture           ? cudaStreamCaptureStatusNone
            : capture->invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  KSHOT_READY();
  *executable = new GraphExec{std::make_shared<const Graph>(*graph)};
  ++mutable_counters().graphs_made;
  return cudaSuccess;
}

// Stricter than the real function: the kernels must be the same, in the same order.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
  KSHOT_READY();
  *info = {};
  if (executable->graph->kinds != graph->kinds) {
    info->result = cudaGraphExecUpdateErrorTopologyChanged;
    return note(cudaErrorGraphExecUpdateFailure);
  }
  executable->graph = std::make_shared<const Graph>(*graph);
  ++mutable_counters().graphs_updated;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  KSHOT_READY();
  return submit(get(stream), "graph", [graph = executable->graph] {
    ++mutable_counters().graphs_launched;
    for (const Work& work : graph->work) work();
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

// ---- memory ----

namespace {

cudaError_t release(void* pointer, bool host) {
  const Lock lock(runtime().mutex);
  if (const cudaError_t error = not_while_capturing(); error != cudaSuccess) return note(error);
  const cudaError_t error = drain_quietly();  // waits, as the real function does
  if (pointer) ++mutable_counters().host_waits;
  if (pointer && !memory().release(pointer, host)) return note(cudaErrorInvalidValue);
  return settings().sticky_error ? note(static_cast<cudaError_t>(settings().sticky_error)) : error;
}

}  // namespace

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  KSHOT_READY_NOT_CAPTURING();
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  ++mutable_counters().host_waits;
  *pointer = memory().allocate(bytes, false);
  return *pointer ? cudaSuccess : note(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* pointer) {
  return release(pointer, false);
}

cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  KSHOT_READY();
  if (get(stream).capture) return note(cudaErrorNotSupported);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = memory().allocate(bytes, false);
  if (!*pointer) {
    drain(get(stream));  // work that frees memory earlier in the stream
    *pointer = memory().allocate(bytes, false);
  }
  return *pointer ? cudaSuccess : note(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  KSHOT_READY();
  if (get(stream).capture) return note(cudaErrorNotSupported);
  return submit(get(stream), "free", [pointer] {
    if (pointer && !memory().release(pointer, false)) {
      throw Failure("cudaFreeAsync: not the begin of a live device allocation");
    }
  });
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  KSHOT_READY_NOT_CAPTURING();
  ++mutable_counters().host_waits;
  *pointer = memory().allocate(std::max<std::size_t>(bytes, 1), true);
  return *pointer ? cudaSuccess : note(cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* pointer) {
  return release(pointer, true);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  KSHOT_READY_NOT_CAPTURING();
  ++mutable_counters().host_waits;
  drain_all(true);
  check_copy(to, from, bytes, kind);
  copy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  KSHOT_READY();
  Stream& s = get(stream);
  check_copy(to, from, bytes, kind);
  const bool pageable_from = !memory().is_device(from) && !is_pinned(from, bytes);
  const bool pageable_to = !memory().is_device(to) && !is_pinned(to, bytes);
  if (pageable_from && !s.capture) {
    ++mutable_counters().host_waits;
    // The source is copied before the call returns (Runtime API reference, "API synchronization
    // behavior").
    auto staged = std::make_shared<std::vector<char>>(bytes);
    std::memcpy(staged->data(), from, bytes);
    return submit(s, "copy", [=] { copy(to, staged->data(), bytes); });
  }
  const cudaError_t error = submit(s, "copy", [=] { copy(to, from, bytes); });
  if (pageable_to && !s.capture) {  // returns when the copy is done
    ++mutable_counters().host_waits;
    drain(s);
  }
  return error;
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  for (std::size_t row = 0; row < height; ++row) {
    const cudaError_t error =
        cudaMemcpyAsync(static_cast<char*>(to) + row * to_pitch,
                        static_cast<const char*>(from) + row * from_pitch, width, kind, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  KSHOT_READY();
  return submit(get(stream), "set", [=] {
    require_device("cudaMemset", to, bytes, false, true);
    raw_fill(to, static_cast<unsigned char>(value), bytes);
  });
}

cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  const Lock lock(runtime().mutex);
  const cudaError_t error = cudaMemsetAsync(to, value, bytes, nullptr);
  if (error == cudaSuccess) drain(runtime().default_stream);
  return error;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  KSHOT_READY();
  *pool = &runtime().pool;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return ready();
}

// ---- kernels ----

cudaError_t set_function_attribute(const void* function, cudaFuncAttribute attribute, int value) {
  KSHOT_READY();
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || value > (227 << 10)) return note(cudaErrorInvalidValue);
    runtime().dynamic_limits[function] = value;
  }
  return cudaSuccess;
}

cudaError_t function_attributes(cudaFuncAttributes* attributes, const void* function) {
  KSHOT_READY();
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  const auto limit = runtime().dynamic_limits.find(function);
  attributes->maxDynamicSharedSizeBytes =
      limit == runtime().dynamic_limits.end() ? 48 << 10 : limit->second;
  return cudaSuccess;
}

cudaError_t occupancy(int* blocks, const void*, int block_size, std::size_t shared_bytes) {
  KSHOT_READY();
  if (block_size < 1 || block_size > 1024) return note(cudaErrorInvalidValue);
  const int by_threads = 2048 / ((block_size + 31) / 32 * 32);
  // The system takes 1 KB of each block's shared memory.
  const auto by_shared = static_cast<int>((std::size_t{228} << 10) / (shared_bytes + 1024));
  *blocks = std::min({by_threads, by_shared, 32});
  return cudaSuccess;
}

}  // namespace api

namespace {

api::cudaError_t enqueue(api::cudaStream_t stream, std::string kind, std::function<void()> work) {
  const std::lock_guard lock(api::runtime().mutex);
  if (const auto error = api::ready(); error != api::cudaSuccess) return api::note(error);
  return api::submit(api::get(stream), std::move(kind), std::move(work));
}

}  // namespace

api::cudaError_t enqueue(api::cudaStream_t stream, std::function<void()> work) {
  return enqueue(stream, "library", std::move(work));
}

api::cudaError_t launch(std::string name, api::dim3 grid, api::dim3 block, std::size_t shared_bytes,
                        api::cudaStream_t stream, void (*body)(const void*),
                        std::shared_ptr<const void> arguments, std::size_t bytes) {
  Kernel kernel{std::move(name), grid, block, shared_bytes, body, arguments.get(), bytes};
  const std::string kind = kernel.name;
  return enqueue(stream, kind, [kept = std::move(arguments), kernel = std::move(kernel)] {
    Settings& s = settings();
    if (s.lost_at_kernel > 0 && counters().kernels + 1 >= s.lost_at_kernel) {
      s.sticky_error = api::cudaErrorLaunchFailure;
    }
    if (s.sticky_error == 0) run(kernel);
  });
}

void require_device(const std::string& who, const void* pointer, std::size_t bytes, bool read,
                    bool write) {
  if (bytes == 0) return;
  std::string why;
  Object* object = memory().find(pointer, bytes, why);
  if (!object) throw Failure(fmt::format("{}: {} bytes, {}", who, bytes, why));
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (read) {
    const std::size_t at = Memory::first_unwritten(*object, address, bytes);
    if (at != bytes) {
      throw Failure(fmt::format("{}: reads what was never written: byte {} of {} ({} bytes)", who,
                                address + at - object->begin, object->name, object->bytes));
    }
  }
  if (write) Memory::mark_written(*object, address, bytes);
}

}  // namespace kshot::simt
