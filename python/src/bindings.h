// Code that the parts of the module kshot._core share: arrays, errors and interruption.
//
// The module is the thin layer below python/kshot, which checks types and shapes, and returns
// dataclasses. Functions here take C-contiguous arrays of the engine's types and return dicts.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kshot/kshot.h"

namespace kshot::python {

namespace nb = nanobind;

/// Thrown for a Config that is not valid. In Python it is kshot.ConfigError.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// Arrays of the caller, which are read in place. Read-only arrays are accepted.
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<const std::int32_t, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <typename Array>
auto span_of(const Array& array) {
  return std::span(array.data(), array.size());
}

/// Returns a NumPy array that owns the vector's memory, without a copy.
template <typename T>
nb::object to_numpy(std::vector<T> values, const std::vector<std::size_t>& shape) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* data = owned->data();
  const nb::capsule owner(owned.get(),
                          [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  owned.release();
  return nb::cast(nb::ndarray<nb::numpy, T>(data, shape.size(), shape.data(), owner));
}

/// Calls `body`. An Error about --set, as the program calls overrides, becomes a ConfigError about
/// "overrides".
template <typename Body>
auto override_errors(const Body& body) {
  constexpr std::string_view program = "--set: ";
  try {
    return body();
  } catch (const Error& error) {
    const std::string_view message = error.what();
    if (!message.starts_with(program)) throw;
    throw ConfigError("overrides: " + std::string(message.substr(program.size())));
  }
}

/// Calls `body` and turns its Error into a ConfigError with the same message.
template <typename Body>
auto config_errors(const Body& body) {
  try {
    return override_errors(body);
  } catch (const DeviceError&) {
    throw;
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    throw ConfigError(error.what());
  }
}

/// Refuses the use of an object in a child process, because its threads exist only in the parent.
class ProcessGuard {
 public:
  ProcessGuard();
  /// Throws Error that names `what` if this is not the process that made the guard.
  void check(const char* what) const;

 private:
  long process_;
};

/// Handles Ctrl-C and exceptions of callbacks for work that runs without the interpreter's lock.
/// The first exception is kept, and the work is asked to stop. When the work has stopped, `rethrow`
/// raises the exception.
class Interruption {
 public:
  /// Returns true if the work should stop. The function looks for signals at most every 10 ms,
  /// because this needs the lock, and only on the thread that made this object, because Python
  /// handles signals only on its main thread.
  bool stop();
  /// Returns `stop` as a function object for the library.
  std::function<bool()> asker() {
    return [this] { return stop(); };
  }
  /// Calls `body`, which calls back into Python, with the lock.
  void call(const std::function<void()>& body);
  bool stopped() const { return stopped_; }
  /// Raises the kept exception, if there is one. The caller holds the lock.
  void rethrow();
  /// Runs work without the lock. The work ends with Stopped when `stop` returns true. Then the kept
  /// exception is raised.
  template <typename Work>
  auto run(const Work& work) {
    std::optional<decltype(work())> result;
    try {
      const nb::gil_scoped_release release;
      result.emplace(override_errors(work));
    } catch (const Stopped&) {
      if (!stopped()) throw;
    }
    rethrow();
    return std::move(*result);
  }

 private:
  void keep(const std::function<void()>& body);

  std::thread::id thread_ = std::this_thread::get_id();
  std::chrono::steady_clock::time_point last_check_{};
  std::mutex mutex_;  ///< guards `error_`
  std::optional<nb::python_error> error_;
  std::atomic<bool> stopped_{false};
};

/// Returns the split with this name. Raises ValueError for another name.
Split split_of(const std::string& name);

void bind_config(nb::module_& m);
void bind_learner(nb::module_& m);
void bind_runs(nb::module_& m);
void bind_imports(nb::module_& m);
void bind_episodes(nb::module_& m);
void bind_reports(nb::module_& m);
void bind_heads(nb::module_& m);
void bind_metrics(nb::module_& m);

}  // namespace kshot::python
