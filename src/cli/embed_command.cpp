#include "cli/embed_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "cli/ranks.h"
#include "engine/rank_checks.h"
#include "kshot/embedder.h"
#include "kshot/error.h"

namespace kshot::cli {

int run_embed(const EmbedArguments& a) {
  const std::shared_ptr<Communicator> ranks = command_ranks();
  const bool quiet = a.quiet || !is_rank_zero();
  EmbedderOptions options;
  options.device = rank_device(a.machine.device, ranks.get());
  options.threads = rank_threads(a.machine.threads, ranks.get());
  options.overrides = a.set;
  options.allow_changed_data = a.allow_changed_data;
  const Embedder embedder(a.run, options);
  const std::string data = a.data.empty() ? embedder.config().data.path : a.data;
  if (data.empty()) {
    throw Error(
        fmt::format("{}: the run has no data file; expected one to embed (--data FILE)", a.run));
  }
  const auto start = std::chrono::steady_clock::now();
  std::optional<Progress> progress;
  const auto show = [&](std::uint64_t done, std::uint64_t total) {
    if (quiet) return;
    if (!progress) progress.emplace(total, "examples");
    progress->update(done);
  };
  const EmbeddedFile result = embed_file(embedder, data, a.out, show, ranks);
  if (progress) progress->finish();
  if (!is_rank_zero()) return 0;
  fmt::print("{} features of {} examples of {}\n", result.features, result.rows, data);
  for (const auto& file : result.files) fmt::print("written to {}\n", file.string());
  if (!a.quiet) {
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    log_info(embedder.describe());
    log_info(fmt::format("{:.1f} s, {:.0f} examples/s, device {}", seconds,
                         static_cast<double>(result.rows) / std::max(seconds, 1e-9),
                         embedder.device()));
  }
  return 0;
}

}  // namespace kshot::cli
