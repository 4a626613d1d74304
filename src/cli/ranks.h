// The program as one of several ranks.
#pragma once

#include <memory>
#include <string>

#include "kshot/communicator.h"

namespace kshot::cli {

/// launched_ranks(), for a command whose work can be divided. From then on only rank 0 logs.
std::shared_ptr<Communicator> command_ranks();
/// Waits at the end of a command for all ranks, so that an error of one, such as an output that
/// rank 0 cannot write, is an error of all.
void end_together();
/// Throws Error where the program was started as several ranks: `command` works in one process.
void expect_one_process(const char* command);
/// Whether this process prints results and messages: it is alone, or rank 0.
bool leads();
/// Rank 0's text.
std::string same_on_all(const std::string& text);

/// Tells the other ranks of an error that ends this one, and returns what rank 0 must print; empty
/// where this process prints nothing, because rank 0 does.
std::string settle(const std::string& message);

}  // namespace kshot::cli
