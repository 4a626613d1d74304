// The works on which kshot and its peers are timed. bench/peers/works.py has the same names and
// numbers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot::bench {

/// A meta-gradient that is timed.
struct Work {
  std::string name;
  Config config;
  int support = 0, query = 0;  ///< rows of a task
  std::vector<int> tasks;      ///< meta-batch sizes on a CPU
  std::vector<int> gpu_tasks;  ///< meta-batch sizes on a GPU
};

/// Returns the works sinusoid_maml_k*, sinusoid_abml_k5_s10, conv4_maml_k*_q*, leo_5w*s_t*, and
/// those of closed-form heads: sinusoid_alpaca, embedding_r2d2_5w5s, conv4_protonet_20w1s,
/// chembl_dkt_n16.
std::vector<Work> works();

std::unique_ptr<EpisodeSource> make_source(const Work& work);

/// Returns the least number of floating-point operations of one task's meta-gradient. A forward
/// pass takes 2 * Network::forward_macs() per row. A gradient takes three times that. A
/// Hessian-vector product takes six times that, because forward and backward each have two products
/// to differentiate, and the values are kept from the gradient.
double floor_flops(const Work& work);

}  // namespace kshot::bench
