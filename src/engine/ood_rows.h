// Query rows that are out of a task's distribution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

/// A task and two sets of query rows for it.
struct OodTask {
  std::vector<float> support_x, support_values;
  std::vector<std::int32_t> support_labels;
  int ways = 0;
  std::vector<float> in_x, out_x;       ///< [rows, inputs]
  std::vector<std::int32_t> in_labels;  ///< classification
};

/// Tasks of a configuration's own data, each with query rows of one kind (kshot/ood.h) that are out
/// of distribution.
class OodTasks {
 public:
  /// `data` is the data file of the configuration, or null. Throws Error for a kind that does not
  /// fit.
  OodTasks(const Config& config, std::shared_ptr<const data::Dataset> data, const std::string& kind,
           Split split);
  ~OodTasks();

  /// Description of the rows, in words.
  const std::string& description() const { return description_; }
  /// True where the labels of the query rows also hold for the changed rows.
  bool keeps_labels() const { return kind_ == Kind::rotate || kind_ == Kind::noise; }
  const EpisodeSource& source() const { return *source_; }
  /// Draws a task. The same numbers give the same task.
  OodTask draw(std::uint64_t seed, Split split, int episode) const;

 private:
  enum class Kind { open_set, rotate, noise, permute, shift, file };

  void prepare_open_set(const Config& config, const std::shared_ptr<const data::Dataset>& data,
                        Split split);
  void prepare_file(const Config& config, const std::string& file);
  void change(OodTask& task, std::uint64_t seed, int episode) const;

  Kind kind_;
  double amount_ = 0.0;
  std::string description_;
  FeatureShape input_;
  /// Open set: number of classes of the support set. Rows of further classes are out of it.
  int known_ways_ = 0;
  std::unique_ptr<EpisodeSource> source_, other_;
  Split other_split_ = Split::test;
};

}  // namespace kshot
