#include "cli/task_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/log.h"
#include "cli/task_rows.h"
#include "data/column_reading.h"
#include "kshot/error.h"

namespace kshot::cli {
namespace {

/// Returns the names of the outputs: those of the training data where labels keep their meaning
/// between tasks, else the support set's own labels, sorted (as numbers where all labels are
/// numbers). `ways` is the largest number of classes; 0: any number.
std::vector<std::string> output_names(const RowReader& reader, const Rows& support,
                                      std::size_t ways) {
  if (!reader.preprocessing().labels.empty()) return reader.preprocessing().labels;
  std::optional<std::pair<std::string, std::string>> merged;
  std::vector<std::string> names = io::distinct_names(support.labels, reader.format(), &merged);
  if (merged) {
    log_info(fmt::format("{}: the labels read as numbers: \"{}\" and \"{}\" are the same class",
                         support.file, merged->first, merged->second));
  }
  if (const auto twins = data::same_but_for_case(names)) {
    log_info(fmt::format("{}: the classes \"{}\" and \"{}\" differ only in upper and lower case",
                         support.file, twins->first, twins->second));
  }
  if (ways > 0 && names.size() > ways) {
    throw Error(fmt::format("{}: {} classes, but the network was trained for {}", support.file,
                            names.size(), ways));
  }
  return names;
}

std::vector<std::size_t> numbered(const Rows& rows, const io::TextFormat& format,
                                  const std::vector<std::string>& names) {
  const io::NameIndex index(names);
  std::vector<std::size_t> labels;
  for (std::size_t i = 0; i < rows.labels.size(); ++i) {
    if (rows.labels[i].empty()) {
      labels.push_back(names.size());
      continue;
    }
    const auto found = index.find(rows.labels[i], format);
    if (!found) {
      throw Error(fmt::format("{}: label \"{}\" is not one of {}", rows.location(i), rows.labels[i],
                              fmt::join(names, ", ")));
    }
    labels.push_back(*found);
  }
  return labels;
}

void number_labels(const RowReader& reader, const Rows& support, const Rows& query,
                   std::size_t outputs, TaskFiles* task) {
  const std::vector<std::string> names = output_names(reader, support, outputs);
  std::vector<std::size_t> labels = numbered(support, reader.format(), names);
  for (std::size_t output = 0; output < names.size(); ++output) {
    if (std::ranges::find(labels, output) == labels.end()) continue;
    task->label_names.push_back(names[output]);
    task->label_outputs.push_back(output);
  }
  if (task->label_names.size() < 2) {
    throw Error(fmt::format("{}: only the class \"{}\"; expected {} classes", support.file,
                            task->label_names.front(),
                            outputs > 0 ? fmt::format("2 to {}", outputs) : "at least 2"));
  }
  if (outputs == 0) {
    // A closed-form head has only the classes of the support set as outputs.
    for (std::size_t& label : labels) {
      const auto at = std::ranges::find(task->label_outputs, label);
      label = static_cast<std::size_t>(at - task->label_outputs.begin());
    }
    std::iota(task->label_outputs.begin(), task->label_outputs.end(), std::size_t{0});
  }
  for (const std::size_t label : labels) {
    task->support_labels.push_back(static_cast<std::int32_t>(label));
  }
  if (!query.has_targets) return;
  // A class that the support rows do not have cannot be predicted. For such a label, numbered()
  // throws an Error that names the known classes.
  const std::vector<std::string>& known = task->label_names;
  for (const std::size_t label : numbered(query, reader.format(), known)) {
    task->query_labels.push_back(label == known.size() ? -1 : static_cast<std::int32_t>(label));
  }
}

/// Sets the classes of a task without support rows.
void prior_classes(const RowReader& reader, const Learner& learner, Rows* query, TaskFiles* task) {
  task->label_names = reader.preprocessing().labels;
  if (task->label_names.empty()) {
    const int ways =
        learner.outputs() > 0 ? learner.outputs() : episode_ways(learner.config()).most;
    for (int c = 0; c < ways; ++c) task->label_names.push_back(std::to_string(c));
    log_info(
        fmt::format("no support rows: the {} classes have no names and are numbered from 0{}{}",
                    ways, learner.outputs() > 0 ? "" : " (--set data.ways=N for another number)",
                    query->has_targets ? "; the labels of the query rows are left out" : ""));
    query->has_targets = false;
  }
  task->label_outputs.resize(task->label_names.size());
  std::iota(task->label_outputs.begin(), task->label_outputs.end(), std::size_t{0});
  if (!query->has_targets) return;
  for (const std::size_t label : numbered(*query, reader.format(), task->label_names)) {
    task->query_labels.push_back(
        label == task->label_names.size() ? -1 : static_cast<std::int32_t>(label));
  }
}

}  // namespace

TaskFileOptions task_file_options(const TextOptions& text, const std::string& missing,
                                  const std::string& layout) {
  TaskFileOptions out;
  out.text = text;
  for (const data::MissingRule rule :
       {data::MissingRule::error, data::MissingRule::mean, data::MissingRule::drop}) {
    if (missing == data::missing_rule_name(rule)) out.missing = rule;
  }
  if (layout == "hwc") out.layout = data::ArrayLayout::hwc;
  if (layout == "chw") out.layout = data::ArrayLayout::chw;
  return out;
}

TaskFiles read_task_files(const Learner& learner,
                          const std::optional<std::filesystem::path>& support_file,
                          const std::filesystem::path& query_file, const TaskFileOptions& options) {
  if (!support_file && !has_prior(learner.config().algorithm)) {
    throw Error(
        "--support: the run's algorithm needs support rows; expected a file (without one alpaca, "
        "bayes_protonet and dkt alone predict, from their prior)");
  }
  RowReader reader(learner, options);
  Rows support;
  if (support_file) support = reader.read_support(*support_file);
  Rows query = reader.read_query(query_file);
  TaskFiles task;
  const auto outputs = static_cast<std::size_t>(learner.outputs());
  if (reader.classify() && support_file) {
    number_labels(reader, support, query, outputs, &task);
  } else if (reader.classify()) {
    prior_classes(reader, learner, &query, &task);
  }
  task.query_has_targets = query.has_targets;
  task.support_x = std::move(support.x);
  task.query_x = std::move(query.x);
  task.query_rows = std::move(query.source);
  if (reader.classify()) return task;
  task.support_values = std::move(support.values);
  task.query_values = std::move(query.values);
  for (const data::Preprocessing::Target& target : reader.preprocessing().targets) {
    task.target_names.push_back(target.name);
    task.target_scale.push_back(target.std);
    task.target_shift.push_back(target.mean);
  }
  return task;
}

}  // namespace kshot::cli
