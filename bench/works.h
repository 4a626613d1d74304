// The works that kshot and its peers (bench/peers/works.py, the same names and numbers) are timed
// on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot::bench {

struct Work {
  std::string name;
  Config config;
  int support = 0, query = 0;  ///< rows of a task
  std::vector<int> tasks;      ///< meta-batch sizes it is registered with
  std::vector<int> gpu_tasks;  ///< likewise on a GPU
};

/// sinusoid_maml_k*, sinusoid_abml_k5_s10, conv4_maml_k*_q*, leo_5w*s_t*, and the closed-form
/// heads: sinusoid_alpaca, embedding_r2d2_5w5s, conv4_protonet_20w1s, chembl_dkt_n16.
std::vector<Work> works();

std::unique_ptr<EpisodeSource> make_source(const Work& work);

/// Floating-point operations of one task's meta-gradient that no algorithm of this kind can do
/// without: a forward pass costs 2 * Network::forward_macs() per row, a gradient three times that,
/// a Hessian-vector product six times (forward and backward each have two products to
/// differentiate; the values are kept from the gradient).
double floor_flops(const Work& work);

}  // namespace kshot::bench
