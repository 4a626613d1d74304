// `embed` computes features of a data file with a run's network.
#pragma once

#include <string>
#include <vector>

#include "cli/commands.h"

namespace kshot::cli {

struct EmbedArguments {
  std::string run, data, out;  ///< data: empty for the run's own data file
  std::vector<std::string> set;
  bool quiet = false, allow_changed_data = false;
  Machine machine;
};
int run_embed(const EmbedArguments& arguments);

}  // namespace kshot::cli
