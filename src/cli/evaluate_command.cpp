#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <system_error>

#include "cli/commands.h"
#include "io/log.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/evaluator.h"

namespace kshot::cli {

namespace fs = std::filesystem;

int run_evaluate(const EvaluateArguments& a) {
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
  put("data.shots", a.shots, 0);
  if (!a.norm.empty()) options.overrides.push_back("evaluate.norm_statistics=\"" + a.norm + "\"");
  options.split = a.split == "test"         ? Split::test
                  : a.split == "validation" ? Split::validation
                                            : Split::train;
  options.baselines = !a.no_baselines;
  options.progress = !a.quiet;
  options.allow_changed_data = a.allow_changed_data;
  std::error_code ignored;
  const fs::path run = a.run;
  const fs::path out = !a.out.empty()                   ? fs::path(a.out)
                       : fs::is_directory(run, ignored) ? run / "evaluation.json"
                                                        : run.parent_path() / "evaluation.json";
  Evaluator evaluator(a.run, options);
  io::OutputFile file(out, io::OutputKind::evaluation);
  const Evaluation result = evaluator.run();
  std::fputs(result.table().c_str(), stdout);
  file.write(result.to_json());
  if (!a.quiet) io::log_info(fmt::format("{:.1f} s; written to {}", result.seconds, out.string()));
  return 0;
}

}  // namespace kshot::cli
