// The module kshot._core, with its exceptions.
#include <unistd.h>

#include "bindings.h"

namespace kshot::python {

ProcessGuard::ProcessGuard() : process_(::getpid()) {}

void ProcessGuard::check(const char* what) const {
  if (process_ == ::getpid()) return;
  throw Error(std::string(what) +
              ": made in the parent process, whose threads a forked process does not have; make it "
              "anew in this process");
}

bool Interruption::stop() {
  if (stopped_) return true;
  if (std::this_thread::get_id() != thread_) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_check_ < std::chrono::milliseconds(10)) return false;
  last_check_ = now;
  const nb::gil_scoped_acquire lock;
  keep([] {
    if (PyErr_CheckSignals() != 0) nb::raise_python_error();
  });
  return stopped_;
}

void Interruption::call(const std::function<void()>& body) {
  if (stopped_) return;
  const nb::gil_scoped_acquire lock;
  keep(body);
}

void Interruption::keep(const std::function<void()>& body) {
  try {
    body();
  } catch (nb::python_error& error) {
    const std::lock_guard guard(mutex_);
    if (!error_) error_.emplace(std::move(error));
    stopped_ = true;
  }
}

void Interruption::rethrow() {
  if (!error_) return;
  error_->restore();
  error_.reset();
  nb::raise_python_error();
}

}  // namespace kshot::python

NB_MODULE(_core, m) {
  using namespace kshot::python;
  m.doc() = "The engine of kshot. Use the package kshot, which wraps it.";
  m.def("version", [] { return std::string(kshot::version()); });
  // nanobind asks later translators first, so that derived exceptions come after their base.
  const nb::exception<kshot::Error> error(m, "Error", PyExc_RuntimeError);
  const nb::object config_bases = nb::make_tuple(error, nb::borrow<nb::object>(PyExc_ValueError));
  const nb::exception<kshot::DeviceError> device_error(m, "DeviceError", error);
  const nb::exception<ConfigError> config_error(m, "ConfigError", config_bases);
  bind_config(m);
  bind_learner(m);
  bind_runs(m);
  bind_reports(m);
  bind_imports(m);
  bind_episodes(m);
  bind_heads(m);
  bind_metrics(m);
}
