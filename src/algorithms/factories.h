// The maker of each algorithm; make_algorithm (algorithm.cpp) chooses among them.
#pragma once

#include <memory>

#include "algorithms/algorithm.h"

namespace kshot {

std::unique_ptr<Algorithm> make_maml(const Config& config, std::shared_ptr<const Network> network);
std::unique_ptr<Algorithm> make_meta_sgd(const Config& config,
                                         std::shared_ptr<const Network> network);
std::unique_ptr<Algorithm> make_abml(const Config& config, std::shared_ptr<const Network> network);
std::unique_ptr<Algorithm> make_leo(const Config& config, std::shared_ptr<const Network> network);
std::unique_ptr<Algorithm> make_hvi(const Config& config, std::shared_ptr<const Network> network);
/// Makes protonet, r2d2, bayes_protonet, alpaca and dkt.
std::unique_ptr<Algorithm> make_closed_form(const Config& config,
                                            std::shared_ptr<const Network> network);

}  // namespace kshot
