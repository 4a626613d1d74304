// Uses only public headers. The library's private dependencies must come with the package.
#include <cstdio>
#include <vector>

#include "kshot/network.h"
#include "kshot/random.h"

int main() {
  const kshot::Network network = kshot::Network::mlp({1, 40, 40, 1}, kshot::LayerType::relu);
  const std::vector<double> weights = network.initial_weights(1);
  kshot::RandomStream random({.seed = 1});
  const float x = random.uniform(-5.0f, 5.0f);
  std::printf("weights %zu\n", weights.size());
  return weights.size() == network.size() && x >= -5.0f && x < 5.0f ? 0 : 1;
}
