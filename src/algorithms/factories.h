// One maker an algorithm; algorithm.cpp holds the table.
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
/// protonet, r2d2, bayes_protonet, alpaca, dkt.
std::unique_ptr<Algorithm> make_closed_form(const Config& config,
                                            std::shared_ptr<const Network> network);

}  // namespace kshot
