// `evaluate`: scores of a run on episodes, for one or several numbers of shots or out of
// distribution.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/ranks.h"
#include "engine/evaluate_run.h"
#include "engine/run_folder.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/evaluator.h"
#include "kshot/report.h"
#include "report/page.h"
#include "report/report_data.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;

/// Reads "1,2,5" as numbers, ascending. Throws Error for a text of another form.
std::vector<int> shots_of(std::string_view text) {
  std::vector<int> numbers;
  while (true) {
    const std::string_view part = text.substr(0, text.find(','));
    int number = -1;
    const auto [end, fault] = std::from_chars(part.data(), part.data() + part.size(), number);
    if (fault != std::errc() || end != part.data() + part.size() || number < 0) {
      throw Error(
          fmt::format("--shots: expected a number of at least 0 or a list such as 1,2,5, "
                      "got \"{}\"",
                      part));
    }
    numbers.push_back(number);
    if (part.size() == text.size()) break;
    text.remove_prefix(part.size() + 1);
  }
  std::ranges::sort(numbers);
  const auto twice = std::ranges::adjacent_find(numbers);
  if (twice != numbers.end()) throw Error(fmt::format("--shots: {} is given twice", *twice));
  return numbers;
}

EvaluatorOptions options_with_ranks(const EvaluateArguments& a) {
  EvaluatorOptions options = evaluator_options(a);
  options.ranks = command_ranks();
  return options;
}

EvaluatorOptions options_with_shots(const EvaluateArguments& a, int shots) {
  EvaluatorOptions options = options_with_ranks(a);
  options.overrides.push_back(fmt::format("data.shots={}", shots));
  return options;
}

/// Returns an HTML page with one plot: the score against the number of shots.
std::string plot_page(const ShotsEvaluation& all) {
  const Evaluation& first = all.by_shots.front().second;
  const std::string name = report::method_name(first.algorithm);
  report::Report page;
  page.title = fmt::format("{}: {} shots to {}", name, all.by_shots.front().first,
                           all.by_shots.back().first);
  page.charts = {report::shots_chart(name, all.by_shots)};
  return report::render(page);
}

int evaluate_list(const EvaluateArguments& a, const std::vector<int>& shots) {
  const fs::path out = a.out.empty() ? file_of_run(a.run, report::shots_file) : fs::path(a.out);
  const fs::path plot = fs::path(out).replace_extension(".html");
  // All evaluators are made before the first one runs, so that an error in one comes immediately.
  std::vector<Evaluator> evaluators;
  for (const int number : shots) evaluators.emplace_back(a.run, options_with_shots(a, number));
  std::optional<io::OutputFile> file, page;
  if (is_rank_zero()) {
    file.emplace(out, io::OutputKind::evaluation);
    page.emplace(plot, io::OutputKind::page);
  }
  ShotsEvaluation all;
  double seconds = 0.0;
  for (std::size_t i = 0; i < shots.size(); ++i) {
    all.by_shots.emplace_back(shots[i], evaluators[i].run());
    seconds += all.by_shots.back().second.seconds;
  }
  if (!is_rank_zero()) return 0;
  std::fputs(all.table().c_str(), stdout);
  file->write(all.to_json());
  page->write(plot_page(all));
  if (!a.quiet) {
    log_info(fmt::format("{:.1f} s; written to {} and {}", seconds, out.string(), plot.string()));
  }
  return 0;
}

int evaluate_out_of_distribution(const EvaluateArguments& a) {
  const std::vector<int> shots = a.shots.empty() ? std::vector<int>{} : shots_of(a.shots);
  if (shots.size() > 1) throw Error("--ood: expected one number of --shots");
  const OodReport written = write_ood(
      a.run, a.ood, a.out, shots.empty() ? options_with_ranks(a) : options_with_shots(a, shots[0]));
  if (!is_rank_zero()) return 0;
  std::fputs(written.table().c_str(), stdout);
  if (!a.quiet) {
    log_info(fmt::format("written to {} and {}", written.file.string(), written.page.string()));
  }
  return 0;
}

}  // namespace

EvaluatorOptions evaluator_options(const EvaluateArguments& a) {
  EvaluatorOptions options;
  options.device = a.machine.device;
  options.threads = a.machine.threads;
  options.overrides = a.set;
  const auto put = [&](const char* key, long long value, long long lowest) {
    if (value >= lowest) options.overrides.push_back(fmt::format("{}={}", key, value));
  };
  put("evaluate.episodes", a.episodes, 1);
  put("evaluate.steps", a.steps, 0);
  put("evaluate.samples", a.samples, 1);
  put("evaluate.seed", a.seed, 0);
  if (!a.norm.empty()) options.overrides.push_back("evaluate.norm_statistics=\"" + a.norm + "\"");
  options.split = a.split == "test"         ? Split::test
                  : a.split == "validation" ? Split::validation
                                            : Split::train;
  options.baselines = !a.no_baselines;
  options.progress = !a.quiet;
  options.allow_changed_data = a.allow_changed_data;
  options.calibrated = a.calibrated;
  return options;
}

int run_evaluate(const EvaluateArguments& a) {
  command_ranks();
  if (!a.ood.empty()) return evaluate_out_of_distribution(a);
  const std::vector<int> shots = a.shots.empty() ? std::vector<int>{} : shots_of(a.shots);
  if (shots.size() > 1) return evaluate_list(a, shots);
  EvaluationPlan plan;
  plan.out = a.out;
  plan.show = [](const Evaluation& result) { std::fputs(result.table().c_str(), stdout); };
  const auto [result, file] = evaluate_run(
      a.run, shots.empty() ? options_with_ranks(a) : options_with_shots(a, shots[0]), plan);
  if (!is_rank_zero() || a.quiet) return 0;
  log_info(fmt::format("{:.1f} s; written to {}", result.seconds, file.string()));
  return 0;
}

}  // namespace kshot::cli
