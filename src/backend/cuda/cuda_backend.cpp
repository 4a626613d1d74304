#include "backend/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string_view>

#include "backend/cuda/cuda_episodes.h"
#include "backend/cuda/cuda_reduction.h"
#include "backend/cuda/cuda_vector.h"
#include "backend/cuda/cuda_wave.h"
#include "backend/cuda/memory.h"
#include "kernels/reduction.h"
#include "kernels/shared_vector.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::Precision;
using backend::Shared;
using backend::SharedVector;

#ifdef KSHOT_SIMT
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#endif

/// Share of the memory at hand that waves of one kind may take, on all streams together.
constexpr double memory_share = 0.8;

/// The most tasks of a wave, a multiple of 16, where memory allows. KSHOT_WAVE_TASKS sets it.
int most_tasks() {
  const char* wanted = std::getenv("KSHOT_WAVE_TASKS");
  if (!wanted) return emulated ? 16 : 4096;
  int tasks = 0;
  const std::string_view text = wanted;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), tasks);
  if (error != std::errc() || end != text.data() + text.size() || tasks < 1 || tasks > 1 << 20) {
    throw Error(fmt::format("KSHOT_WAVE_TASKS = \"{}\": expected the most tasks of a wave, 1 to {}",
                            text, 1 << 20));
  }
  return (tasks + run_tasks - 1) / run_tasks * run_tasks;
}

/// How convolutions of floats are computed: on tensor cores where the device has them.
/// KSHOT_TENSOR_CORES=0 does without, =1 insists.
Arithmetic arithmetic_of(const Device& device, Precision precision) {
  const char* wanted = std::getenv("KSHOT_TENSOR_CORES");
  const std::string_view text = wanted ? wanted : "";
  if (wanted && text != "0" && text != "1") {
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
        stream_(std::make_shared<const Stream>()),
        copies_(std::make_shared<const Stream>()),
        sum_(1) {
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
    return std::make_shared<CudaVector<T>>(device_, stream_, copies_, size);
  }
  std::unique_ptr<backend::Wave> open(std::shared_ptr<const Network> network,
                                      const backend::Loss& loss,
                                      const backend::WaveShape& shape) override {
    device_.activate();
    const std::lock_guard lock(mutex_);
    const Kind kind{network->size(), shape};
    const auto planned = find(kind);
    const int tasks = planned == planned_.end() ? run_tasks : planned->plan.tasks;
    return std::make_unique<CudaWave<T>>(device_, std::move(network), loss, shape, tasks,
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
    backend::EpisodePlace place = place_episodes(*stream_, recipe, split, memory().at_hand);
    promised_ += place.bytes;
    return place;
  }
  bool differentiates(const Network& network, const backend::WaveShape& shape) const override {
    device_.activate();
    return PerceptronPath<T>(network, shape).open();
  }
  std::size_t device_bytes() const override { return cuda::device_bytes().load(); }
  bool asynchronous() const override { return true; }
  std::unique_ptr<backend::Reduction> reduction(std::span<const std::size_t> widths) override {
    device_.activate();
    return std::make_unique<CudaReduction<T>>(device_, widths);
  }

  void assign(SharedVector& dst, const SharedVector& src) override {
    check_sizes(dst.size(), src.size());
    run([&](cudaStream_t) { stream_->copy(at(dst), at(src), src.size()); });
  }
  void multiply(SharedVector& dst, const SharedVector& src) override {
    check_sizes(dst.size(), src.size());
    run([&](cudaStream_t s) { cuda::multiply(at(dst), at(src), src.size(), s); });
  }
  void add(SharedVector& dst, double a, const SharedVector& src) override {
    check_sizes(dst.size(), src.size());
    run([&](cudaStream_t s) { axpy(at(dst), static_cast<T>(a), at(src), src.size(), s); });
  }
  double squared_norm(const SharedVector& v, double clip) override {
    return sum([&](double* to, cudaStream_t s) {
      cuda::squared_norm(to, at(v), static_cast<T>(clip), v.size(), s);
    });
  }
  void gather(SharedVector& dst, const SharedVector& src,
              std::span<const std::uint32_t> index) override {
    check_sizes(dst.size(), index.size());
    keep(index, src.size());
    run([&](cudaStream_t s) { cuda::gather(at(dst), at(src), index_.data(), index.size(), s); });
  }
  void scatter_add(SharedVector& dst, const SharedVector& src, std::span<const std::uint32_t> index,
                   bool accumulate) override {
    check_sizes(src.size(), index.size());
    keep(index, dst.size());
    DeviceMemory<T> sums(accumulate ? dst.size() : 0);
    run([&](cudaStream_t s) {
      T* const to = accumulate ? sums.data() : at(dst);
      gather_sum(to, at(src), first_.data(), order_.data(), dst.size(), s);
      if (accumulate) axpy(at(dst), T(1), sums.data(), dst.size(), s);
    });
  }
  double l2_penalty(const SharedVector& v, std::span<const Segment> segments, double weight,
                    SharedVector& g) override {
    check_sizes(v.size(), g.size());
    double squares = 0.0;
    for (const Segment& segment : segments) {
      squares += sum([&](double* to, cudaStream_t s) {
        const T* const x = at(v) + segment.offset;
        cuda::squared_norm(to, x, T(0), segment.size, s);
        axpy(at(g) + segment.offset, static_cast<T>(weight), x, segment.size, s);
      });
    }
    return 0.5 * weight * squares;
  }
  double hyper_prior(const SharedVector& mu, const SharedVector& s, double a0, double b0,
                     double weight, SharedVector& g_mu, SharedVector& g_s) override {
    for (const SharedVector* v :
         {&s, static_cast<const SharedVector*>(&g_mu), static_cast<const SharedVector*>(&g_s)}) {
      check_sizes(v->size(), mu.size());
    }
    return weight * sum([&](double* to, cudaStream_t stream) {
             cuda::hyper_prior(to, at(mu), at(s), a0, b0, weight, at(g_mu), at(g_s), mu.size(),
                               stream);
           });
  }
  void clip(SharedVector& v, double value, double norm,
            std::span<const Segment> segments) override {
    std::vector<cuda::Segment> host;
    for (const Segment& segment : segments) host.push_back({segment.offset, segment.size});
    device_.activate();
    DeviceMemory<cuda::Segment> list(host.size());
    stream_->to_device(list.data(), host.data(), host.size());
    run([&](cudaStream_t s) {
      cuda::clip(at(v), static_cast<T>(value), norm, list.data(), static_cast<int>(host.size()), s);
    });
  }
  double column_orthogonality(const SharedVector& v, std::size_t offset, std::size_t rows,
                              std::size_t columns, double weight, SharedVector& g) override {
    check_sizes(v.size(), g.size());
    device_.activate();
    DeviceMemory<double> scratch(columns * columns + 2 * columns);
    return sum([&](double* to, cudaStream_t s) {
      cuda::column_orthogonality(to, at(v) + offset, static_cast<int>(rows),
                                 static_cast<int>(columns), weight, at(g) + offset, scratch.data(),
                                 s);
    });
  }
  void optimizer_step(SharedVector& parameters, const SharedVector& gradient, SharedVector& m,
                      SharedVector* v, const backend::OptimizerStep& step) override;

 private:
  /// What waves of one size have in common.
  struct Kind {
    std::size_t weights = 0;
    backend::WaveShape shape;
    bool operator==(const Kind&) const = default;
  };
  struct Planned {
    Kind kind;
    backend::WavePlan plan;
  };
  typename std::vector<Planned>::iterator find(const Kind& kind) {
    return std::ranges::find(planned_, kind, &Planned::kind);
  }
  backend::WavePlan plan(const std::function<backend::WaveDemand(int tasks)>& demand);
  /// Bytes of the device's memory; `at_hand` are free and not promised to anyone.
  struct Memory {
    std::size_t at_hand = 0, total = 0;
  };
  Memory memory() const;

  static T* at(SharedVector& v) { return on_device<T>(v).data(); }
  static const T* at(const SharedVector& v) { return on_device<T>(v).data(); }
  /// Work on shared vectors is done when it returns.
  template <class Work>
  void run(const Work& work) {
    device_.activate();
    work(stream_->get());
    stream_->wait();
  }
  /// work(where a double goes, stream); returns the double.
  template <class Work>
  double sum(const Work& work) {
    device_.activate();
    work(sum_.data(), stream_->get());
    double value = 0.0;
    stream_->to_host(&value, sum_.data(), 1);
    return value;
  }
  /// Brings `index` and its inverse to the device: for each of `targets` the elements that name it,
  /// in ascending order. It stays there until another one is asked for.
  void keep(std::span<const std::uint32_t> index, std::size_t targets);

  Device device_;
  std::string name_;
  int threads_;
  int most_tasks_;
  Arithmetic arithmetic_;
  std::string description_;
  std::shared_ptr<const Stream> stream_, copies_;
  DeviceMemory<double> sum_;
  std::mutex mutex_;  ///< workers open their waves at once
  std::vector<Planned> planned_;
  std::size_t promised_ = 0;  ///< bytes, to the waves planned so far and to episodes
  std::vector<std::uint32_t> host_index_;
  std::size_t targets_ = 0;
  DeviceMemory<std::uint32_t> index_, first_, order_;
};

template <class T>
typename CudaBackend<T>::Memory CudaBackend<T>::memory() const {
  std::size_t free = 0, total = 0;
  KSHOT_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  // Waves planned before may not have taken theirs yet.
  const std::size_t coming = promised_ - std::min(promised_, device_bytes());
  return {free - std::min(free, coming), total};
}

template <class T>
backend::WavePlan CudaBackend<T>::plan(
    const std::function<backend::WaveDemand(int tasks)>& demand) {
  const auto [at_hand, total] = memory();
  backend::WaveDemand asked = demand(most_tasks_);
  const Kind kind{asked.network->size(), asked.shape};
  if (const auto known = find(kind); known != planned_.end()) return known->plan;
  // A task's share depends on how many share: the more tasks, the less each keeps. So the size goes
  // down until it fits.
  const double room = memory_share * static_cast<double>(at_hand) / threads_;
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
  if (wave > at_hand) {
    throw DeviceError(fmt::format("{}: the smallest wave, {} tasks, takes {}; {} of {} are free",
                                  name_, plan.tasks, bytes_text(wave), bytes_text(at_hand),
                                  bytes_text(total)));
  }
  promised_ += static_cast<std::size_t>(threads_) * wave;
  planned_.push_back({kind, plan});
  return plan;
}

template <class T>
void CudaBackend<T>::keep(std::span<const std::uint32_t> index, std::size_t targets) {
  if (targets == targets_ && std::ranges::equal(index, host_index_)) return;
  std::vector<std::uint32_t> first(targets + 1, 0), order(index.size());
  for (const std::uint32_t target : index) {
    if (target >= targets) throw std::logic_error("index out of range");
    ++first[target + 1];
  }
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<std::uint32_t> next(first.begin(), first.end() - 1);
  for (std::size_t i = 0; i < index.size(); ++i) {
    order[next[index[i]]++] = static_cast<std::uint32_t>(i);
  }
  device_.activate();
  const auto put = [&](DeviceMemory<std::uint32_t>& to, std::span<const std::uint32_t> from) {
    to.reserve(from.size());
    stream_->to_device(to.data(), from.data(), from.size());
  };
  put(index_, index);
  put(first_, first);
  put(order_, order);
  host_index_.assign(index.begin(), index.end());
  targets_ = targets;
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
  a.factor = static_cast<T>(step.gradient_factor);
  a.decay = static_cast<T>(step.weight_decay);
  run([&](cudaStream_t s) { cuda::optimizer_step(a, parameters.size(), s); });
}

// ---- devices ----

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// Number of GPUs, or why there are none.
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

/// Empty, or why a device cannot be used: it runs a kernel.
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

std::unique_ptr<Backend> make_simt_backend(int threads, Precision precision) {
  return cuda::make("simt", 0, "simt", threads, precision);
}

DeviceInfo simt_device() {
  return {"simt", "CUDA kernels run by the host, for tests: checks every access, slow", true, ""};
}

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
