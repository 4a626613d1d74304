// Functions for a program that may run as one of several ranks.
#pragma once

#include <memory>
#include <string>

#include "kshot/communicator.h"

namespace kshot::cli {

/// Returns launched_ranks(), for a command whose work can be divided. After this call only rank 0
/// logs.
std::shared_ptr<Communicator> command_ranks();
/// Waits at the end of a command for all ranks, so that an error of one rank, such as an output
/// that rank 0 cannot write, is an error of all ranks.
void end_together();
/// Throws Error where the program was started as several ranks, because `command` works in one
/// process.
void expect_one_process(const char* command);
/// True if this process prints results and messages: it is alone, or rank 0.
bool is_rank_zero();
/// Returns rank 0's `text` on all ranks.
std::string rank_zero_text(const std::string& text);

/// Tells the other ranks of an error that ends this one. Returns the message that this process must
/// print; empty where rank 0 prints the message in its place.
std::string share_failure(const std::string& message);

}  // namespace kshot::cli
