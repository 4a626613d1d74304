#include "algorithms/algorithm.h"

#include "algorithms/factories.h"

namespace kshot {

std::unique_ptr<Algorithm> make_algorithm(const Config& config,
                                          std::shared_ptr<const Network> network) {
  switch (config.algorithm) {
    case AlgorithmKind::maml:
      return make_maml(config, std::move(network));
    case AlgorithmKind::meta_sgd:
      return make_meta_sgd(config, std::move(network));
    case AlgorithmKind::abml:
      return make_abml(config, std::move(network));
    case AlgorithmKind::leo:
      return make_leo(config, std::move(network));
    case AlgorithmKind::hvi:
      return make_hvi(config, std::move(network));
    case AlgorithmKind::protonet:
    case AlgorithmKind::r2d2:
    case AlgorithmKind::bayes_protonet:
    case AlgorithmKind::alpaca:
    case AlgorithmKind::dkt:
      return make_closed_form(config, std::move(network));
  }
  return nullptr;
}

}  // namespace kshot
