#include "backend/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <list>
#include <mutex>
#include <stdexcept>
#include <string_view>

#include "backend/cuda/cuda_episodes.h"
#include "backend/cuda/cuda_reduction.h"
#include "backend/cuda/cuda_step.h"
#include "backend/cuda/cuda_vector.h"
#include "backend/cuda/cuda_wave.h"
#include "backend/cuda/memory.h"
#include "backend/cuda/node_exchange.h"
#include "kernels/compaction.h"
#include "kernels/elementwise.h"
#include "kernels/reduction.h"
#include "kernels/shared_vector.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::Precision;
using backend::Shared;
using backend::SharedVector;
using backend::Sum;

#ifdef KSHOT_SIMT
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#endif

/// Share of the available memory that waves of one kind may take, on all streams together.
constexpr double memory_share = 0.8;

/// Largest number of tasks of a wave, a multiple of 16, if memory allows. KSHOT_WAVE_TASKS
/// overrides it.
int most_tasks() {
  const char* setting = std::getenv("KSHOT_WAVE_TASKS");
  if (!setting) return emulated ? 16 : 4096;
  int tasks = 0;
  const std::string_view text = setting;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), tasks);
  if (error != std::errc() || end != text.data() + text.size() || tasks < 1 || tasks > 1 << 20) {
    throw Error(fmt::format("KSHOT_WAVE_TASKS = \"{}\": expected the most tasks of a wave, 1 to {}",
                            text, 1 << 20));
  }
  return (tasks + run_tasks - 1) / run_tasks * run_tasks;
}

/// The arithmetic of float convolutions: on tensor cores where the device has them.
/// KSHOT_TENSOR_CORES=0 turns tensor cores off, =1 requires them.
Arithmetic arithmetic_of(const Device& device, Precision precision) {
  const char* setting = std::getenv("KSHOT_TENSOR_CORES");
  const std::string_view text = setting ? setting : "";
  if (setting && text != "0" && text != "1") {
    throw Error(fmt::format(
        "KSHOT_TENSOR_CORES = \"{}\": expected 0 (without tensor cores) or 1 (on them)", text));
  }
  const bool possible = has_tensor_cores(device.index());
  if (text == "1" && !possible) {
    throw Error(
        "KSHOT_TENSOR_CORES = \"1\": expected a device of compute capability 8.0 or higher");
  }
  return precision == Precision::f32 && possible && text != "0" ? Arithmetic::split_tf32
                                                                : Arithmetic::plain;
}

template <class T>
class CudaBackend final : public backend::Backend {
 public:
  CudaBackend(const Device& device, std::string name, int threads)
      : device_(device),
        name_(std::move(name)),
        threads_(threads > 0 ? threads
                 : emulated  ? 1
                             : 2),
        most_tasks_(most_tasks()),
        arithmetic_(arithmetic_of(device, CudaBackend::precision())),
        stream_(std::make_shared<const SharedStream>()) {
    cudaDeviceProp properties{};
    KSHOT_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
    description_ = fmt::format(
        "{}, {}, compute capability {}.{}, {}, {}, {} stream{}", name_, properties.name,
        properties.major, properties.minor, bytes_text(properties.totalGlobalMem),
        precision() == Precision::f64           ? "double"
        : arithmetic_ == Arithmetic::split_tf32 ? "float, convolutions in TF32 split three ways"
                                                : "float, convolutions without tensor cores",
        threads_, threads_ == 1 ? "" : "s");
  }
  std::string name() const override { return name_; }
  std::string description() const override { return description_; }
  Precision precision() const override {
    return sizeof(T) == sizeof(double) ? Precision::f64 : Precision::f32;
  }
  int concurrency() const override { return threads_; }

  Shared shared(std::size_t size) override {
    device_.activate();
    return std::make_shared<CudaVector<T>>(device_, stream_, size);
  }
  std::unique_ptr<backend::Wave> open(std::shared_ptr<const Network> network,
                                      const backend::Loss& loss,
                                      const backend::WaveShape& shape) override {
    device_.activate();
    const std::lock_guard lock(mutex_);
    const Kind kind{network->size(), shape};
    const auto planned = find(kind);
    const int tasks = planned == planned_.end() ? run_tasks : planned->plan.tasks;
    return std::make_unique<CudaWave<T>>(device_, stream_, std::move(network), loss, shape, tasks,
                                         arithmetic_);
  }
  backend::WavePlan plan_waves(
      const std::function<backend::WaveDemand(int tasks)>& demand) override {
    device_.activate();
    const std::lock_guard lock(mutex_);
    return plan(demand);
  }
  backend::EpisodePlace place(const EpisodeRecipe& recipe, Split split) override {
    device_.activate();
    const std::lock_guard lock(mutex_);
    backend::EpisodePlace place = place_episodes(stream_->get(), recipe, split, memory().available);
    promised_ += place.bytes;
    return place;
  }
  bool fuses_descent(const Network& network, const backend::WaveShape& shape) const override {
    device_.activate();
    return PerceptronPath<T>(network, shape).open();
  }
  std::size_t device_bytes() const override { return cuda::device_bytes().load(); }
  bool asynchronous() const override { return true; }
  void set_ranks(std::shared_ptr<Communicator> ranks) override {
    device_.activate();
    exchange_ = ranks ? open_exchange(ranks) : nullptr;
    Backend::set_ranks(std::move(ranks));
  }
  bool exchanges_on_device() const override { return exchange_ && exchange_->on_device(); }
  std::unique_ptr<backend::Reduction> reduction(std::span<const std::size_t> widths) override {
    device_.activate();
    return std::make_unique<CudaReduction<T>>(device_, stream_, widths, exchange_);
  }
  std::unique_ptr<backend::Step> open_step() override {
    device_.activate();
    return std::make_unique<CudaStep<T>>(device_, stream_, exchange_);
  }

  void assign(SharedVector& dst, const SharedVector& src) override {
    check_sizes(dst.size(), src.size());
    run([&](cudaStream_t) { stream_->get().copy(at(dst), at(src), src.size()); });
  }
  void multiply(SharedVector& dst, const SharedVector& src) override {
    check_sizes(dst.size(), src.size());
    run([&](cudaStream_t s) { cuda::multiply(at(dst), at(src), src.size(), s); });
  }
  void add(SharedVector& dst, double a, const SharedVector& src) override {
    check_sizes(dst.size(), src.size());
    run([&](cudaStream_t s) { axpy(at(dst), static_cast<T>(a), at(src), src.size(), s); });
  }
  void exponential(SharedVector& dst, const SharedVector& src) override {
    check_sizes(dst.size(), src.size());
    run([&](cudaStream_t s) { cuda::exponential(at(dst), at(src), src.size(), s); });
  }
  void squared_norm(const SharedVector& v, double clip, Sum to) override {
    run([&](cudaStream_t s) {
      cuda::squared_norm(at(to), 1.0, at(v), static_cast<T>(clip), v.size(), s);
    });
  }
  void gather(SharedVector& dst, const SharedVector& src,
              std::span<const std::uint32_t> index) override {
    check_sizes(dst.size(), index.size());
    const Index& kept = keep(index, src.size());
    run([&](cudaStream_t s) {
      cuda::gather(at(dst), at(src), kept.index.data(), index.size(), s);
    });
  }
  void scatter_add(SharedVector& dst, const SharedVector& src, std::span<const std::uint32_t> index,
                   bool accumulate) override {
    check_sizes(src.size(), index.size());
    const Index& kept = keep(index, dst.size());
    run([&](cudaStream_t s) {
      gather_sum(at(dst), at(src), kept.first.data(), kept.order.data(), dst.size(), accumulate, s);
    });
  }
  void l2_penalty(const SharedVector& v, std::span<const Segment> segments, double weight,
                  SharedVector& g, Sum to) override {
    check_sizes(v.size(), g.size());
    run([&](cudaStream_t s) {
      for (const Segment& segment : segments) {
        const T* const x = at(v) + segment.offset;
        cuda::squared_norm(at(to), 0.5 * weight, x, T(0), segment.size, s);
        axpy(at(g) + segment.offset, static_cast<T>(weight), x, segment.size, s);
      }
    });
  }
  void hyper_prior(const SharedVector& mu, const SharedVector& s, double a0, double b0,
                   double weight, SharedVector& g_mu, SharedVector& g_s, Sum to) override {
    for (const SharedVector* v :
         {&s, static_cast<const SharedVector*>(&g_mu), static_cast<const SharedVector*>(&g_s)}) {
      check_sizes(v->size(), mu.size());
    }
    run([&](cudaStream_t stream) {
      cuda::hyper_prior(at(to), at(mu), at(s), a0, b0, weight, at(g_mu), at(g_s), mu.size(),
                        stream);
    });
  }
  void clip(SharedVector& v, double value, double norm,
            std::span<const Segment> segments) override {
    const cuda::Segment* const list = keep(segments);
    run([&](cudaStream_t s) {
      cuda::clip(at(v), static_cast<T>(value), norm, list, static_cast<int>(segments.size()), s);
    });
  }
  void column_orthogonality(const SharedVector& v, std::size_t offset, std::size_t rows,
                            std::size_t columns, double weight, SharedVector& g, Sum to) override {
    check_sizes(v.size(), g.size());
    device_.activate();
    scratch_.reserve(columns * columns + 2 * columns);
    run([&](cudaStream_t s) {
      cuda::column_orthogonality(at(to), at(v) + offset, static_cast<int>(rows),
                                 static_cast<int>(columns), weight, at(g) + offset, scratch_.data(),
                                 s);
    });
  }
  void guard(const backend::Step& step, SharedVector& gradient, const SharedVector& parameters,
             double factor) override {
    check_sizes(gradient.size(), parameters.size());
    run([&](cudaStream_t s) {
      cuda::guard(at(gradient), at(parameters), static_cast<T>(factor), statistics(step),
                  gradient.size(), s);
    });
  }
  void optimizer_step(SharedVector& parameters, const SharedVector& gradient, SharedVector& m,
                      SharedVector* v, const backend::OptimizerStep& step) override;

 private:
  /// Waves of one kind have the same size.
  struct Kind {
    std::size_t weights = 0;
    backend::WaveShape shape;
    bool operator==(const Kind&) const = default;
  };
  /// A wave size that was planned and promised memory.
  struct Planned {
    Kind kind;
    backend::WavePlan plan;
  };
  typename std::vector<Planned>::iterator find(const Kind& kind) {
    return std::ranges::find(planned_, kind, &Planned::kind);
  }
  backend::WavePlan plan(const std::function<backend::WaveDemand(int tasks)>& demand);
  /// The device's memory in bytes. `available` bytes are free and not promised to waves or
  /// episodes.
  struct Memory {
    std::size_t available = 0, total = 0;
  };
  Memory memory();

  static T* at(SharedVector& v) { return on_device<T>(v).data(); }
  static const T* at(const SharedVector& v) { return on_device<T>(v).data(); }
  static double* at(Sum to) { return dynamic_cast<CudaStep<T>&>(to.step).at(to.statistic); }
  static const StepStatistics* statistics(const backend::Step& step) {
    return dynamic_cast<const CudaStep<T>&>(step).statistics();
  }
  /// Runs work on shared vectors on their stream.
  template <class Work>
  void run(const Work& work) {
    device_.activate();
    work(stream_->write().get());
  }
  /// An index and its inverse on the device. The inverse lists, for each of `targets`, the elements
  /// that name it, in ascending order.
  struct Index {
    std::vector<std::uint32_t> host;
    std::size_t targets = 0;
    DeviceMemory<std::uint32_t> index, first, order;
  };
  /// Segments of a vector, on the host and on the device.
  struct Segments {
    std::vector<cuda::Segment> host;
    DeviceMemory<cuda::Segment> list;
  };
  /// Returns a copy of the index or of the segments on the device. Copies are kept there, because
  /// steps ask for the same ones repeatedly and the device need not wait for them.
  const Index& keep(std::span<const std::uint32_t> index, std::size_t targets);
  const cuda::Segment* keep(std::span<const Segment> segments);
  /// Largest number of kept indices, and of kept segment lists.
  static constexpr std::size_t most_kept = 64;

  Device device_;
  std::string name_;
  int threads_;
  int most_tasks_;
  Arithmetic arithmetic_;
  std::string description_;
  SharedStreamPointer stream_;
  std::shared_ptr<NodeExchange> exchange_;  ///< exchange between ranks; null: one process
  DeviceMemory<double> scratch_;
  std::mutex mutex_;  ///< workers open their waves concurrently
  std::vector<Planned> planned_;
  /// Bytes that are promised to the waves planned so far and to episodes. The number never shrinks:
  /// waves of a planned kind may be opened at the planned size at any time, so that closed waves
  /// may come again.
  std::size_t promised_ = 0;
  std::size_t before_promises_ = 0;  ///< bytes that this program had taken before its first promise
  std::list<Index> indices_;         ///< most recent first
  std::list<Segments> segments_;
};

template <class T>
typename CudaBackend<T>::Memory CudaBackend<T>::memory() {
  std::size_t free = 0, total = 0;
  KSHOT_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const std::size_t now = device_bytes();
  if (promised_ == 0) before_promises_ = now;
  // Waves that were planned before may not have taken their memory yet.
  const std::size_t taken = now - std::min(now, before_promises_);
  const std::size_t coming = promised_ - std::min(promised_, taken);
  return {free - std::min(free, coming), total};
}

template <class T>
backend::WavePlan CudaBackend<T>::plan(
    const std::function<backend::WaveDemand(int tasks)>& demand) {
  const auto [available, total] = memory();
  backend::WaveDemand asked = demand(most_tasks_);
  const Kind kind{asked.network->size(), asked.shape};
  if (const auto known = find(kind); known != planned_.end()) return known->plan;
  // The number of tasks decides how much memory one of them needs: with more tasks per wave, each
  // keeps less. The size is therefore reduced until the wave fits.
  const double room = memory_share * static_cast<double>(available) / threads_;
  backend::WavePlan plan{most_tasks_, 0};
  std::size_t wave = wave_bytes<T>(device_, asked, plan.tasks);
  while (static_cast<double>(wave) > room && plan.tasks > run_tasks) {
    const double fit = plan.tasks * room / static_cast<double>(wave);
    plan.tasks = std::max(static_cast<int>(fit) / run_tasks, 1) * run_tasks;
    asked = demand(plan.tasks);
    wave = wave_bytes<T>(device_, asked, plan.tasks);
  }
  const auto tasks = static_cast<std::size_t>(plan.tasks);
  plan.task_bytes = (wave + tasks - 1) / tasks;
  if (wave > available) {
    throw DeviceError(fmt::format("{}: the smallest wave, {} tasks, takes {}; {} of {} are free",
                                  name_, plan.tasks, bytes_text(wave), bytes_text(available),
                                  bytes_text(total)));
  }
  promised_ += static_cast<std::size_t>(threads_) * wave;
  planned_.push_back({kind, plan});
  return plan;
}

template <class T>
const typename CudaBackend<T>::Index& CudaBackend<T>::keep(std::span<const std::uint32_t> index,
                                                           std::size_t targets) {
  const auto known = std::ranges::find_if(indices_, [&](const Index& kept) {
    return kept.targets == targets && std::ranges::equal(kept.host, index);
  });
  if (known != indices_.end()) return *known;
  for (const std::uint32_t target : index) {
    if (target >= targets) throw std::logic_error("index out of range");
  }
  device_.activate();
  const Stream& stream = stream_->get();
  Index made{{index.begin(), index.end()}, targets, {}, {}, {}};
  made.index = DeviceMemory<std::uint32_t>(index.size());
  made.order = DeviceMemory<std::uint32_t>(index.size());
  made.first = DeviceMemory<std::uint32_t>(targets + 1);
  DeviceMemory<std::uint32_t> scratch(index.size());
  stream.to_device(made.index.data(), index.data(), index.size());
  invert_index(made.first.data(), made.order.data(), made.index.data(), index.size(), targets,
               scratch.data(), stream.get());
  stream.wait();
  if (indices_.size() == most_kept) indices_.pop_back();
  return indices_.emplace_front(std::move(made));
}

template <class T>
const cuda::Segment* CudaBackend<T>::keep(std::span<const Segment> segments) {
  const auto same = [](const cuda::Segment& a, const Segment& b) {
    return a.offset == b.offset && a.size == b.size;
  };
  const auto known = std::ranges::find_if(segments_, [&](const Segments& kept) {
    return std::ranges::equal(kept.host, segments, same);
  });
  if (known != segments_.end()) return known->list.data();
  device_.activate();
  Segments made;
  for (const Segment& segment : segments) made.host.push_back({segment.offset, segment.size});
  made.list = DeviceMemory<cuda::Segment>(made.host.size());
  stream_->get().to_device(made.list.data(), made.host.data(), made.host.size());
  if (segments_.size() == most_kept) segments_.pop_back();
  return segments_.emplace_front(std::move(made)).list.data();
}

template <class T>
void CudaBackend<T>::optimizer_step(SharedVector& parameters, const SharedVector& gradient,
                                    SharedVector& m, SharedVector* v,
                                    const backend::OptimizerStep& step) {
  const bool adam = step.kind == backend::OptimizerStep::Kind::adam;
  if (adam && v == nullptr) throw std::logic_error("adam without its second moment");
  check_sizes(gradient.size(), parameters.size());
  check_sizes(m.size(), parameters.size());
  const auto n = static_cast<double>(step.step);
  OptimizerArguments<T> a;
  a.parameters = at(parameters);
  a.gradient = at(gradient);
  a.first = at(m);
  a.second = adam ? at(*v) : nullptr;
  a.rate = static_cast<T>(step.learning_rate);
  a.momentum = static_cast<T>(step.momentum);
  a.beta1 = static_cast<T>(step.beta1);
  a.beta2 = static_cast<T>(step.beta2);
  a.epsilon = static_cast<T>(step.epsilon);
  a.correction1 = static_cast<T>(1.0 - std::pow(step.beta1, n));
  a.correction2 = static_cast<T>(1.0 - std::pow(step.beta2, n));
  a.clip = static_cast<T>(step.clip_value);
  a.decay = static_cast<T>(step.weight_decay);
  a.step = step.training_step ? statistics(*step.training_step) : nullptr;
  a.clip_norm = step.clip_norm;
  run([&](cudaStream_t s) { cuda::optimizer_step(a, parameters.size(), s); });
}

// ---- devices ----

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// The number of GPUs, or the reason why there are none.
struct DeviceCount {
  int count = 0;
  std::string reason;
};
DeviceCount count_devices() {
  DeviceCount found;
  const cudaError_t error = cudaGetDeviceCount(&found.count);
  if (error == cudaSuccess && found.count > 0) return found;
  cudaGetLastError();
  found.count = 0;
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (error == cudaErrorInsufficientDriver) {
    found.reason =
        driver == 0
            ? "no NVIDIA driver is installed"
            : fmt::format("the NVIDIA driver is too old: it serves CUDA {}, this build needs {}",
                          version_text(driver), version_text(runtime));
  } else if (error == cudaSuccess || error == cudaErrorNoDevice) {
    found.reason = "no NVIDIA GPU was found";
  } else {
    found.reason = fmt::format("{} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
  }
  return found;
}

/// Runs a kernel on a device. Returns an empty string, or the reason why the device cannot be used.
std::string why_unusable(int index) {
  try {
    const Device device(index);
    const Stream stream;
    DeviceMemory<float> x(1);
    fill(x.data(), 1.0f, 1, stream.get());
    float one = 0.0f;
    stream.to_host(&one, x.data(), 1);
    return one == 1.0f ? "" : "a kernel that writes 1 left something else";
  } catch (const DeviceError& error) {
    return error.what();
  }
}

std::unique_ptr<backend::Backend> make(const std::string& asked, int index, std::string name,
                                       int threads, Precision precision) {
  const DeviceCount found = count_devices();
  const auto fail = [&](const std::string& reason) -> DeviceError {
    return DeviceError(fmt::format("device \"{}\": {}", asked, reason));
  };
  if (!found.reason.empty()) throw fail(found.reason);
  if (index >= found.count) {
    throw fail(fmt::format("this machine has {} GPU{}, numbered from 0", found.count,
                           found.count == 1 ? "" : "s"));
  }
  if (const std::string reason = why_unusable(index); !reason.empty()) throw fail(reason);
  const Device device(index);
  if (precision == Precision::f64) {
    return std::make_unique<CudaBackend<double>>(device, std::move(name), threads);
  }
  return std::make_unique<CudaBackend<float>>(device, std::move(name), threads);
}

}  // namespace
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda

namespace kshot::backend {

#ifdef KSHOT_SIMT

namespace {

[[maybe_unused]] const bool added = add_backend(
    {{"simt", "CUDA kernels run by the host, for tests: checks every access, slow", true, ""},
     [](int threads, Precision precision) {
       return cuda::make("simt", 0, "simt", threads, precision);
     }});

}  // namespace

#else

std::unique_ptr<Backend> make_cuda_backend(const std::string& device, int threads,
                                           Precision precision) {
  int index = 0;
  if (device != "cuda") {
    const std::string number = device.substr(device.find(':') + 1);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
    if (error != std::errc() || end != number.data() + number.size() || index < 0) {
      throw Error(
          fmt::format("device \"{}\": expected \"cuda\" or \"cuda:N\", N = 0, 1, ...", device));
    }
  }
  return cuda::make(device, index, fmt::format("cuda:{}", index), threads, precision);
}

std::vector<DeviceInfo> list_cuda_devices() {
  const cuda::DeviceCount found = cuda::count_devices();
  if (!found.reason.empty()) return {{"cuda", "NVIDIA GPU", false, found.reason}};
  std::vector<DeviceInfo> list;
  for (int i = 0; i < found.count; ++i) {
    cudaDeviceProp properties{};
    KSHOT_CUDA_CHECK(cudaGetDeviceProperties(&properties, i));
    const std::string reason = cuda::why_unusable(i);
    list.push_back(
        {fmt::format("cuda:{}", i),
         fmt::format("{}, compute capability {}.{}, {}", properties.name, properties.major,
                     properties.minor, cuda::bytes_text(properties.totalGlobalMem)),
         reason.empty(), reason});
  }
  return list;
}

#endif

}  // namespace kshot::backend
