#include "engine/evaluate_run.h"

#include <optional>
#include <utility>

#include "engine/rank_checks.h"
#include "engine/run_folder.h"
#include "io/output_file.h"

namespace kshot {

WrittenEvaluation evaluate_run(const std::filesystem::path& run, const EvaluatorOptions& options,
                               const EvaluationPlan& plan) {
  Communicator* const ranks = options.ranks.get();
  return run_and_report_failure(ranks, [&] {
    Evaluator evaluator =
        plan.source ? Evaluator(run, plan.source, options) : Evaluator(run, options);
    std::filesystem::path path = plan.out;
    if (path.empty() && !plan.source) path = file_of_run(run, evaluation_file);
    std::optional<io::OutputFile> file;
    if (!path.empty() && is_rank_zero(ranks)) file.emplace(path, io::OutputKind::evaluation);
    WrittenEvaluation result{evaluator.run(), std::move(path)};
    if (plan.show && is_rank_zero(ranks)) plan.show(result.evaluation);
    if (file) file->write(result.evaluation.to_json());
    if (ranks != nullptr) ranks->barrier("the evaluation");
    return result;
  });
}

}  // namespace kshot
