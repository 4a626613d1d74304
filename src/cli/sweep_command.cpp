// `sweep`: many trainings of one configuration, which are compared by their validation tasks.
#include <fmt/format.h>

#include <charconv>
#include <mutex>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/signals.h"
#include "kshot/error.h"
#include "kshot/stop.h"
#include "kshot/sweep.h"

namespace kshot::cli {
namespace {

/// Reads "2/8" as the number of a shard and the number of shards. Throws Error for a text of
/// another form.
std::pair<int, int> shard_of(std::string_view text) {
  int shard = 0, shards = 0;
  const std::size_t slash = text.find('/');
  const auto read = [](std::string_view part, int& value) {
    const auto [end, fault] = std::from_chars(part.data(), part.data() + part.size(), value);
    return fault == std::errc() && end == part.data() + part.size();
  };
  if (slash == std::string_view::npos || !read(text.substr(0, slash), shard) ||
      !read(text.substr(slash + 1), shards) || shard < 1 || shard > shards) {
    throw Error(fmt::format("--shard {}: expected I/N, I from 1 to N, such as 2/8", text));
  }
  return {shard, shards};
}

SweepSettings settings_of(const SweepArguments& a) {
  SweepSettings s = a.space.empty() ? SweepSettings() : SweepSettings::load(a.space);
  for (const std::string& text : a.vary) s.add_axis(text);
  if (a.random > 0) s.random = a.random;
  if (a.seed >= 0) s.seed = static_cast<std::uint64_t>(a.seed);
  if (a.halving > 0) s.halving = a.halving;
  if (a.first_steps > 0) s.first_steps = a.first_steps;
  return s;
}

void log_row(const SweepRow& row, std::size_t done) {
  std::string text = fmt::format("{}: run {:03}, step {}", done, row.run, row.step);
  if (!row.metric.empty()) text += fmt::format(", validation {} {:.4g}", row.metric, row.value);
  if (!row.message.empty()) text += fmt::format(", failed: {}", row.message);
  log_info(text);
}

}  // namespace

int run_sweep_command(const SweepArguments& a) {
  const SweepSettings settings = settings_of(a);
  SweepOptions options;
  options.out = a.out;
  options.jobs = a.jobs;
  options.threads = a.threads;
  options.device = a.device;
  options.collect = a.collect;
  if (!a.shard.empty()) std::tie(options.shard, options.shards) = shard_of(a.shard);
  const SignalScope signals;
  options.stop = [] { return caught_signal() != 0; };
  std::mutex mutex;
  std::size_t done = 0;
  if (!a.quiet) {
    options.on_row = [&](const SweepRow& row) {
      const std::lock_guard lock(mutex);
      log_row(row, ++done);
    };
  }
  std::vector<SweepRow> rows;
  try {
    rows = run_sweep(a.config, a.set, settings, options);
  } catch (const Stopped&) {
    if (!a.quiet) log_info("interrupted; the same command goes on with the sweep");
    return 128 + caught_signal();
  }
  fmt::print("{}", sweep_table(settings, rows));
  const SweepRow& best = rows.front();
  if (best.metric.empty()) throw Error("no run of the sweep has a validation");
  std::string changes;
  for (std::size_t i = 0; i < settings.axes.size(); ++i) {
    changes += fmt::format(" --set '{}={}'", settings.axes[i].key, best.values[i]);
  }
  fmt::print("\nbest by validation: {}/run-{:03},{}\n", a.out, best.run, changes);
  return 0;
}

}  // namespace kshot::cli
