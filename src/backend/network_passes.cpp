#include "backend/network_passes.h"

#include <fmt/format.h>

#include <stdexcept>

#include "kshot/error.h"

namespace kshot::backend {
namespace {

[[noreturn]] void no_estimator() {
  throw DeviceError("this device computes abml.estimator = \"weight\" alone");
}

}  // namespace

void NetworkPasses::require_set(const char* operation, Set set) const {
  if (set != Set::all || rows_part().shape().with_all) return;
  throw std::logic_error(fmt::format("{}: the wave was opened without Set::all", operation));
}

void NetworkPasses::require_loss(const char* operation, Block loss) {
  if (loss) vectors().require_width(operation, loss, 1);
}

void NetworkPasses::require_outputs(const char* operation, Set set, Block outputs) {
  if (!outputs) return;
  const auto rows = static_cast<std::size_t>(rows_part().rows(set));
  const auto width = static_cast<std::size_t>(rows_part().network().outputs());
  vectors().require_no_weights(operation, outputs);
  vectors().require_width(operation, outputs, rows * width);
}

void NetworkPasses::gradient(const Pass& pass, Block grad, bool accumulate, Block loss) {
  require_set("gradient", pass.set);
  vectors().require_weights("gradient", {pass.weights, grad});
  require_loss("gradient", loss);
  do_gradient(pass, grad, accumulate, loss);
}

void NetworkPasses::output_pullback(const Pass& pass, Block g_outputs, Block grad,
                                    bool accumulate) {
  require_set("output_pullback", pass.set);
  vectors().require_weights("output_pullback", {pass.weights, grad});
  require_outputs("output_pullback", pass.set, g_outputs);
  do_output_pullback(pass, g_outputs, grad, accumulate);
}

void NetworkPasses::hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                                   Block grad) {
  require_set("hessian_vector", pass.set);
  vectors().require_weights("hessian_vector", {pass.weights, direction, hv, grad});
  do_hessian_vector(pass, direction, hv, accumulate, grad);
}

void NetworkPasses::gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                                  Block scratch) {
  require_set("gradient_step", pass.set);
  vectors().require_weights("gradient_step", {pass.weights, dst, src, scratch});
  vectors().require_rates("gradient_step", dst, rate);
  do_gradient_step(pass, dst, src, rate, scratch);
}

void NetworkPasses::hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                                 Block scratch) {
  require_set("hessian_step", pass.set);
  vectors().require_weights("hessian_step", {pass.weights, dst, v, grad, scratch});
  vectors().require_rates("hessian_step", dst, rate);
  do_hessian_step(pass, dst, v, rate, grad, scratch);
}

void NetworkPasses::value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) {
  require_set("value", pass.set);
  vectors().require_weights("value", {pass.weights});
  require_loss("value", loss);
  require_outputs("value", pass.set, outputs);
  do_value(pass, loss, outputs, statistics);
}

void NetworkPasses::split_gradient(const SplitPass& pass, Block g_mean, Block g_spread,
                                   bool accumulate, Block loss) {
  require_set("split_gradient", pass.set);
  vectors().require_weights("split_gradient", {pass.mean, pass.spread, g_mean, g_spread});
  require_loss("split_gradient", loss);
  do_split_gradient(pass, g_mean, g_spread, accumulate, loss);
}

void NetworkPasses::split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                         Block h_mean, Block h_spread) {
  require_set("split_hessian_vector", pass.set);
  vectors().require_weights("split_hessian_vector",
                            {pass.mean, pass.spread, u_mean, u_spread, h_mean, h_spread});
  do_split_hessian_vector(pass, u_mean, u_spread, h_mean, h_spread);
}

void NetworkPasses::split_value(const SplitPass& pass, Block loss, Block outputs,
                                NormStatistics statistics) {
  require_set("split_value", pass.set);
  vectors().require_weights("split_value", {pass.mean, pass.spread});
  require_loss("split_value", loss);
  require_outputs("split_value", pass.set, outputs);
  do_split_value(pass, loss, outputs, statistics);
}

// ---- operations that a backend need not have ----

void NetworkPasses::do_gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                                     Block scratch) {
  do_gradient(pass, scratch, false, {});
  vectors().rate_step(dst, src, rate, scratch);
}

void NetworkPasses::do_hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate,
                                    Block grad, Block scratch) {
  vectors().rate_multiply(scratch, rate, v);
  do_hessian_vector(pass, scratch, dst, false, grad);
  vectors().rate_step(dst, v, {1.0}, dst);
}

void NetworkPasses::do_split_gradient(const SplitPass& /*pass*/, Block /*g_mean*/,
                                      Block /*g_spread*/, bool /*accumulate*/, Block /*loss*/) {
  no_estimator();
}
void NetworkPasses::do_split_hessian_vector(const SplitPass& /*pass*/, Block /*u_mean*/,
                                            Block /*u_spread*/, Block /*h_mean*/,
                                            Block /*h_spread*/) {
  no_estimator();
}
void NetworkPasses::do_split_value(const SplitPass& /*pass*/, Block /*loss*/, Block /*outputs*/,
                                   NormStatistics /*statistics*/) {
  no_estimator();
}

}  // namespace kshot::backend
