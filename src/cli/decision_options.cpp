#include "cli/decision_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "kshot/error.h"

namespace kshot::cli {

Decisions make_decisions(const AdaptArguments& a, const Learner& learner, const TaskFiles& task) {
  const DecisionNames names{"--max-risk", "--min-confidence", "--level"};
  Decisions d = kshot::make_decisions({a.max_risk, a.min_confidence, a.level}, learner, names);
  if (d.threshold &&
      std::ranges::find(task.label_names, unknown_answer) != task.label_names.end()) {
    throw Error(
        fmt::format("{}: a class of the support rows is called \"{}\", as rows without an answer "
                    "are; expected another name",
                    a.max_risk ? names.max_risk : names.min_confidence, unknown_answer));
  }
  for (const std::string& note : d.notes) log_info(note);
  return d;
}

std::string describe_answers(const Decisions& d, const DecidedRows& rows, const Prediction& p,
                             const TaskFiles& task) {
  if (!d.threshold) return {};
  const auto outputs = static_cast<std::size_t>(p.outputs);
  std::size_t answered = 0, known = 0, wrong = 0;
  for (std::size_t row = 0; row < rows.answered.size(); ++row) {
    if (!rows.answered[row]) continue;
    ++answered;
    if (!task.query_has_targets || task.query_labels[row] < 0) continue;
    const auto first = p.mean.begin() + static_cast<std::ptrdiff_t>(row * outputs);
    const auto best = std::max_element(first, first + static_cast<std::ptrdiff_t>(outputs)) - first;
    ++known;
    wrong += best != task.query_labels[row] ? 1 : 0;
  }
  std::string text = fmt::format("answered {} of {} rows: {}\n", answered, p.rows, d.promise);
  if (known > 0) {
    text += fmt::format("of {} answers with labels {} are wrong\n", known, wrong);
  }
  return text;
}

}  // namespace kshot::cli
