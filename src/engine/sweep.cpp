#include "kshot/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <mutex>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>

#include "base/text.h"
#include "engine/checkpoint.h"
#include "engine/run_folder.h"
#include "io/atomic_file.h"
#include "io/csv.h"
#include "kshot/error.h"
#include "kshot/stop.h"
#include "kshot/trainer.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// Meta-steps after which the runs are compared. The last one is the number of steps of the
/// configuration.
std::vector<std::uint64_t> rounds_of(const SweepSettings& settings, int steps) {
  const auto last = static_cast<std::uint64_t>(steps);
  std::vector<std::uint64_t> rounds;
  if (settings.halving > 0) {
    for (auto at = static_cast<std::uint64_t>(settings.first_steps); at < last;
         at *= static_cast<std::uint64_t>(settings.halving)) {
      rounds.push_back(at);
    }
  }
  rounds.push_back(last);
  return rounds;
}

/// The runs of a sweep, or of one of its shards.
class Sweep {
 public:
  /// make_config(overrides) is the sweep's configuration with further overrides. `origin` names the
  /// configuration in messages.
  Sweep(const std::function<Config(const std::vector<std::string>&)>& make_config,
        const std::string& origin, const SweepSettings& settings, const SweepOptions& options)
      : settings_(settings), options_(options) {
    if (options.shard < 1 || options.shard > options.shards) {
      throw Error(fmt::format("shard {}/{}: expected a number from 1 to {}", options.shard,
                              options.shards, std::max(1, options.shards)));
    }
    if ((settings.halving > 0) != (settings.first_steps > 0)) {
      throw Error(
          "successive halving: expected both halving and first_steps, "
          "or neither");
    }
    const std::vector<std::vector<std::string>> runs = settings.runs();
    for (std::size_t i = 0; i < runs.size(); ++i) {
      if (static_cast<int>(i % static_cast<std::size_t>(options.shards)) != options.shard - 1) {
        continue;
      }
      std::vector<std::string> changes;
      for (std::size_t a = 0; a < settings.axes.size(); ++a) {
        changes.push_back(settings.axes[a].key + "=" + runs[i][a]);
      }
      configs_.push_back(make_config(changes));
      check(configs_.back(), origin);
      SweepRow row;
      row.run = static_cast<int>(i);
      row.values = runs[i];
      rows_.push_back(std::move(row));
      read_state(rows_.size() - 1);
    }
  }

  void run() {
    if (options_.collect) return finish_collection();
    write();
    std::vector<std::size_t> survivors(rows_.size());
    std::iota(survivors.begin(), survivors.end(), std::size_t{0});
    int steps = 1;
    for (const Config& c : configs_) steps = std::max(steps, c.train.steps);
    const std::vector<std::uint64_t> rounds = rounds_of(settings_, steps);
    for (std::size_t r = 0; r < rounds.size() && !survivors.empty(); ++r) {
      train_all(survivors, rounds[r]);
      if (stopped_) throw Stopped();
      std::erase_if(survivors, [&](std::size_t i) { return rows_[i].status == "failed"; });
      if (r + 1 == rounds.size()) break;
      std::ranges::stable_sort(
          survivors, [&](std::size_t a, std::size_t b) { return better(rows_[a], rows_[b]); });
      const std::size_t factor = static_cast<std::size_t>(settings_.halving);
      const std::size_t kept = std::max<std::size_t>(1, (survivors.size() + factor - 1) / factor);
      for (std::size_t i = kept; i < survivors.size(); ++i) rows_[survivors[i]].status = "stopped";
      survivors.resize(std::min(kept, survivors.size()));
      std::ranges::sort(survivors);
      write();
    }
    for (const std::size_t i : survivors) rows_[i].status = "done";
    write();
  }

  std::vector<SweepRow> sorted() const {
    std::vector<SweepRow> all = rows_;
    std::ranges::stable_sort(all, better);
    return all;
  }

 private:
  static bool better(const SweepRow& a, const SweepRow& b) {
    if (a.metric.empty() || b.metric.empty()) return !a.metric.empty() && b.metric.empty();
    return a.metric == "accuracy" ? a.value > b.value : a.value < b.value;
  }

  fs::path folder(const SweepRow& row) const {
    return options_.out / fmt::format("run-{:03}", row.run);
  }

  void check(const Config& config, const std::string& origin) const {
    config.check_data(origin);
    if (config.train.validate_every == 0) {
      throw Error(
          fmt::format("{}: train.validate_every = 0: a sweep chooses "
                      "by validation; expected at least 1",
                      origin));
    }
    if (settings_.first_steps > 0 && config.train.validate_every > settings_.first_steps) {
      throw Error(
          fmt::format("{}: train.validate_every = {}: expected at most "
                      "first_steps = {}, after which runs are "
                      "compared",
                      origin, config.train.validate_every, settings_.first_steps));
    }
  }

  /// Reads the state of a run from its checkpoint, where there is one.
  void read_state(std::size_t i) {
    SweepRow& row = rows_[i];
    std::error_code ignored;
    if (!fs::exists(folder(row) / last_checkpoint, ignored)) return;
    const Checkpoint c = Checkpoint::read(folder(row) / last_checkpoint);
    if (!(c.config == configs_[i])) {
      throw Error(
          fmt::format("{}: holds a run with another configuration than "
                      "run {} of this sweep; expected another "
                      "--out, or the sweep as it was begun",
                      folder(row).string(), row.run));
    }
    put_state(row, c.state);
  }

  static void put_state(SweepRow& row, const RunState& state) {
    row.step = state.step;
    row.seconds = state.seconds;
    if (!state.validated) return;
    row.metric = state.best.metric;
    row.value = state.best.value;
    row.half_width = state.best.half_width;
    row.best_step = state.best.step;
  }

  void finish_collection() {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      SweepRow& row = rows_[i];
      if (row.step > 0) {
        row.status =
            row.step >= static_cast<std::uint64_t>(configs_[i].train.steps) ? "done" : "stopped";
      }
    }
    read_failures();
    write();
  }

  /// Marks the runs that failed. Only the table of their shard says so, because a run that fails
  /// before its first checkpoint leaves no folder.
  void read_failures() {
    for (const fs::directory_entry& entry : fs::directory_iterator(options_.out)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with("sweep-") || !name.ends_with(".csv")) continue;
      const std::string text = io::read_file(entry.path());
      if (std::ranges::count(text, '\n') < 2) continue;  // a shard without runs
      const io::Table table = io::parse_csv(text, entry.path().string(), ',');
      const std::size_t run = table.require("run", "a shard's table");
      const std::size_t status = table.require("status", "a shard's table");
      const std::size_t message = table.require("message", "a shard's table");
      for (std::size_t r = 0; r < table.rows; ++r) {
        if (table.cell(status, r) != "failed") continue;
        for (SweepRow& row : rows_) {
          if (table.cell(run, r) != std::to_string(row.run)) continue;
          row.status = "failed";
          row.message = table.cell(message, r);
          row.metric.clear();
        }
      }
    }
  }

  /// Trains runs up to a step, several at the same time.
  void train_all(const std::vector<std::size_t>& runs, std::uint64_t target) {
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
      for (std::size_t k = next++; k < runs.size() && !stopped_; k = next++) {
        train(runs[k], target);
      }
    };
    const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
    const std::size_t jobs = std::min<std::size_t>(
        runs.size(), options_.jobs > 0 ? static_cast<std::size_t>(options_.jobs) : cores);
    std::vector<std::jthread> threads;
    for (std::size_t j = 1; j < jobs; ++j) threads.emplace_back(work);
    work();
    threads.clear();  // joins
    if (failure_) throw Error(*failure_);
  }

  void train(std::size_t i, std::uint64_t target) {
    SweepRow row;
    {
      const std::lock_guard lock(mutex_);
      row = rows_[i];
    }
    const Config& config = configs_[i];
    const std::uint64_t last = std::min(target, static_cast<std::uint64_t>(config.train.steps));
    // When all runs have reached this step, successive halving decides whether the run continues.
    row.status = last < static_cast<std::uint64_t>(config.train.steps) ? "waiting" : "done";
    row.message.clear();
    if (row.step < last) {
      try {
        train_to(row, config, last);
      } catch (const Error& error) {
        // One run may diverge without ending the others.
        row.status = "failed";
        row.message = error.what();
        row.metric.clear();
      }
    }
    const std::lock_guard lock(mutex_);
    rows_[i] = row;
    try {
      check_metrics();
      write();
    } catch (const Error& error) {
      failure_ = error.what();
      stopped_ = true;
    }
    if (options_.on_row) options_.on_row(row);
  }

  void train_to(SweepRow& row, const Config& config, std::uint64_t last) {
    TrainerOptions training;
    training.run_folder = folder(row);
    // A run may have been stopped before its first step.
    std::error_code ignored;
    training.resume = fs::exists(training.run_folder / last_checkpoint, ignored);
    training.device = options_.device;
    training.threads = options_.threads;
    training.command = "kshot sweep";
    std::uint64_t step = row.step;
    training.stop = [&] {
      // Asked before every step.
      if (options_.stop && options_.stop()) stopped_ = true;
      return stopped_ || step++ >= last;
    };
    Trainer trainer(config, training);
    const TrainResult result = trainer.run();
    RunState state;
    state.step = result.step;
    state.seconds = result.seconds;
    state.validated = result.validated;
    state.best = result.best;
    put_state(row, state);
    if (stopped_ && result.step < last && result.reason == StopReason::asked) {
      row.status = "interrupted";
    } else if (!result.validated) {
      throw Error("no validation was made (the data have no validation tasks?)");
    }
  }

  /// Throws Error where runs have different metrics, whose values cannot be compared.
  void check_metrics() const {
    const SweepRow* first = nullptr;
    for (const SweepRow& row : rows_) {
      if (row.metric.empty()) continue;
      if (first == nullptr) first = &row;
      if (row.metric == first->metric) continue;
      throw Error(
          fmt::format("run {} is validated by {}, run {} by {}: they "
                      "cannot be compared; expected one loss.type "
                      "in all runs",
                      first->run, first->metric, row.run, row.metric));
    }
  }

  void write() const {
    std::error_code ignored;
    fs::create_directories(options_.out, ignored);
    const std::string name =
        options_.shards > 1 && !options_.collect
            ? fmt::format("sweep-{}-of-{}.csv", options_.shard, options_.shards)
            : "sweep.csv";
    io::write_file_atomic(options_.out / name, sweep_csv(settings_, sorted()));
  }

  SweepSettings settings_;
  SweepOptions options_;
  std::vector<Config> configs_;
  std::vector<SweepRow> rows_;
  std::mutex mutex_;
  std::atomic<bool> stopped_{false};
  std::optional<std::string> failure_;
};

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

std::vector<SweepRow> run_sweep(const fs::path& config, const std::vector<std::string>& overrides,
                                const SweepSettings& settings, const SweepOptions& options) {
  const auto make_config = [&](const std::vector<std::string>& changes) {
    std::vector<std::string> all = overrides;
    all.insert(all.end(), changes.begin(), changes.end());
    return Config::load(config, all);
  };
  Sweep sweep(make_config, config.string(), settings, options);
  sweep.run();
  return sweep.sorted();
}

std::vector<SweepRow> run_sweep(const Config& config, const std::string& origin,
                                const SweepSettings& settings, const SweepOptions& options) {
  const std::string text = config.to_toml();
  const auto make_config = [&](const std::vector<std::string>& changes) {
    return Config::parse(text, origin, changes);
  };
  Sweep sweep(make_config, origin, settings, options);
  sweep.run();
  return sweep.sorted();
}

std::string sweep_csv(const SweepSettings& settings, const std::vector<SweepRow>& rows) {
  std::string text = "run,status,metric,value,half_width,best_step,steps,seconds";
  for (const SweepAxis& axis : settings.axes) text += "," + csv_field(axis.key);
  text += ",message\n";
  for (const SweepRow& r : rows) {
    text += fmt::format("{},{},{},", r.run, r.status, r.metric);
    text += r.metric.empty() ? ",,"
                             : fmt::format("{:.6g},{:.3g},{}", r.value, r.half_width, r.best_step);
    text += fmt::format(",{},{:.1f}", r.step, r.seconds);
    for (const std::string& value : r.values) text += "," + csv_field(value);
    text += "," + csv_field(r.message) + "\n";
  }
  return text;
}

std::string sweep_table(const SweepSettings& settings, const std::vector<SweepRow>& rows) {
  std::vector<std::vector<std::string>> cells = {{"run", "status", "validation", "steps"}};
  for (const SweepAxis& axis : settings.axes) cells.front().push_back(axis.key);
  for (const SweepRow& r : rows) {
    std::string value;
    if (r.metric == "accuracy") {
      value = fmt::format("{:.2f} %", 100.0 * r.value);
    } else if (!r.metric.empty()) {
      value = fmt::format("{} {:.4f}", r.metric, r.value);
    }
    cells.push_back({fmt::format("{:03}", r.run), r.status, value, fmt::format("{}", r.step)});
    cells.back().insert(cells.back().end(), r.values.begin(), r.values.end());
  }
  std::string text;
  for (const auto& row : cells) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      std::size_t width = 0;
      for (const auto& other : cells) width = std::max(width, other[c].size());
      line += (c == 0 ? "" : "  ") + std::string(width - row[c].size(), ' ') + row[c];
    }
    text += line + "\n";
  }
  return text;
}

}  // namespace kshot
