#include "cli/ranks.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/log.h"
#include "distributed/launch.h"
#include "engine/rank_checks.h"
#include "kshot/error.h"

namespace kshot::cli {
namespace {

/// The communicator of this process; null before command_ranks() and for a process alone.
std::shared_ptr<Communicator>& current() {
  static std::shared_ptr<Communicator> ranks;
  return ranks;
}

}  // namespace

std::shared_ptr<Communicator> command_ranks() {
  current() = launched_ranks();
  if (!is_rank_zero()) set_log_level(LogLevel::off);
  return current();
}

void end_together() {
  if (current() != nullptr && !current()->failed()) current()->barrier("the end of the command");
}

void expect_one_process(const char* command) {
  const std::shared_ptr<Communicator> ranks = command_ranks();
  if (ranks == nullptr) return;
  throw Error(
      fmt::format("{}: works in one process, but {} were started; train, evaluate, calibrate, "
                  "embed and bandit can use several (KSHOT_RANKS=off: each process works for "
                  "itself)",
                  command, ranks->size()));
}

bool is_rank_zero() {
  if (current() != nullptr) return current()->rank() == 0;
  const char* const setting = std::getenv("KSHOT_RANKS");
  if (setting != nullptr && std::string(setting) == "off") return true;
  return detect_launch([](const char* name) { return std::getenv(name); }).rank == 0;
}

std::string rank_zero_text(const std::string& text) {
  return text_of_rank_zero(current().get(), text, "a text");
}

std::string share_failure(const std::string& message) {
  Communicator* const ranks = current().get();
  if (ranks == nullptr) return is_rank_zero() ? message : std::string();
  ranks->fail(message);
  if (ranks->rank() != 0) return {};
  return ranks->failure().empty() ? message : ranks->failure();
}

}  // namespace kshot::cli
