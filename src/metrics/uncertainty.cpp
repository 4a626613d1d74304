#include "metrics/uncertainty.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "kshot/error.h"
#include "metrics/constants.h"

namespace kshot::metrics {
namespace {

/// Sums over the rows of one bin.
struct Sums {
  double count = 0.0, right = 0.0, sum = 0.0;
};

/// sum_b |right - sum of the probabilities|
double gaps(std::span<const Sums> bins) {
  double total = 0.0;
  for (const Sums& b : bins) total += std::abs(b.right - b.sum);
  return total;
}

}  // namespace

/// Evaluates all statistics repeatedly, for different weights of the episodes, and keeps its
/// buffers.
class EpisodeAnswers::Pass {
 public:
  static constexpr std::size_t count = 11;

  explicit Pass(const EpisodeAnswers& all)
      : all_(all), bins_(all.options_.bins), sums_((all.most_classes_ + 1) * bins_) {
    const std::size_t n = all.answers_.size();
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return all.answers_[i].confidence; });
    for (const std::size_t i : order) {
      confidence_.push_back(all.answers_[i].confidence);
      wrong_.push_back(all.answers_[i].right ? 0.0 : 1.0);
      episode_.push_back(all.episode_of_[i]);
    }
    weight_.resize(n);
    passed_.resize(n + 1);
  }

  void operator()(std::span<const std::uint32_t> weights, std::span<double> values) {
    for (std::size_t i = 0; i < weight_.size(); ++i) {
      weight_[i] = weights[episode_[i]];
      passed_[i + 1] = passed_[i] + weight_[i];
    }
    add_cells(weights);
    values[0] = rows_ > 0.0 ? gaps(std::span(sums_).first(bins_)) / rows_ : kNaN;
    values[1] = largest_gap();
    values[2] = equal_mass();
    classes(values[3], values.subspan(4, 4));
    selective(values.subspan(8, 3));
  }

 private:
  void add_cells(std::span<const std::uint32_t> weights) {
    std::ranges::fill(sums_, Sums{});
    rows_of_class_.assign(all_.most_classes_, 0.0);
    rows_ = 0.0;
    brier_ = 0.0;
    for (std::size_t e = 0; e < all_.episodes_.size(); ++e) {
      if (weights[e] == 0) continue;
      const double w = weights[e];
      const Episode& episode = all_.episodes_[e];
      for (std::size_t i = episode.first_cell; i < episode.last_cell; ++i) {
        const Cell& cell = all_.cells_[i];
        Sums& sums = sums_[cell.index];
        sums.count += w * cell.count;
        sums.right += w * cell.right;
        sums.sum += w * cell.sum;
      }
      const double rows = w * static_cast<double>(episode.rows);
      rows_ += rows;
      brier_ += w * episode.brier;
      for (std::size_t c = 0; c < episode.classes; ++c) rows_of_class_[c] += rows;
    }
  }

  double largest_gap() const {
    double largest = rows_ > 0.0 ? 0.0 : kNaN;
    for (const Sums& b : std::span(sums_).first(bins_)) {
      if (b.count > 0.0) largest = std::max(largest, std::abs(b.right - b.sum) / b.count);
    }
    return largest;
  }

  /// Computes the classwise ECE and the parts of the Brier score.
  void classes(double& classwise, std::span<double> parts) const {
    double errors = 0.0, present = 0.0;
    double reliability = 0.0, resolution = 0.0, uncertainty = 0.0;
    for (std::size_t c = 0; c < rows_of_class_.size(); ++c) {
      const double n = rows_of_class_[c];
      if (n == 0.0) continue;
      const auto bins = std::span(sums_).subspan((c + 1) * bins_, bins_);
      double right = 0.0;
      for (const Sums& b : bins) right += b.right;
      const double share = right / n;
      errors += gaps(bins) / n;
      present += 1.0;
      uncertainty += n / rows_ * share * (1.0 - share);
      for (const Sums& b : bins) {
        if (b.count == 0.0) continue;
        const double gap = (b.sum - b.right) / b.count, apart = b.right / b.count - share;
        reliability += b.count / rows_ * gap * gap;
        resolution += b.count / rows_ * apart * apart;
      }
    }
    classwise = present > 0.0 ? errors / present : kNaN;
    const bool any = rows_ > 0.0;
    parts[0] = any ? reliability : kNaN;
    parts[1] = any ? resolution : kNaN;
    parts[2] = any ? uncertainty : kNaN;
    parts[3] = any ? brier_ / rows_ - (reliability - resolution + uncertainty) : kNaN;
  }

  /// Returns the confidence with the given rank among all rows in ascending order.
  double order_statistic(std::size_t rank) const {
    const auto above = std::ranges::upper_bound(passed_, static_cast<double>(rank));
    return confidence_[static_cast<std::size_t>(above - passed_.begin()) - 1];
  }

  /// The calibration error as defined by metrics::ece_equal_mass, for the weighted rows.
  double equal_mass() {
    if (rows_ == 0.0) return kNaN;
    const auto last = static_cast<std::size_t>(rows_) - 1;
    double total = 0.0;
    std::size_t at = 0;
    for (std::size_t b = 1; b <= bins_; ++b) {
      double edge = confidence_.back();
      if (b < bins_) {
        const std::size_t position = b * last;
        const double low = order_statistic(position / bins_);
        const double high = order_statistic(std::min(position / bins_ + 1, last));
        const double rest = static_cast<double>(position % bins_) / static_cast<double>(bins_);
        edge = low + rest * (high - low);
      }
      double gap = 0.0;
      for (; at < confidence_.size() && confidence_[at] <= edge; ++at) {
        gap += weight_[at] * (1.0 - wrong_[at] - confidence_[at]);
      }
      total += std::abs(gap);
    }
    return total / rows_;
  }

  /// Computes AURC, risk at a coverage and coverage at a risk, as RiskCoverage does.
  void selective(std::span<double> values) const {
    double area = 0.0, answered = 0.0, wrong = 0.0, risk = kNaN, coverage = 0.0;
    // The tolerance is for rounding: the coverage of 4 of 5 rows may be slightly below 0.8.
    const double enough = (all_.options_.coverage - 1e-12) * rows_;
    const double most = all_.options_.risk + 1e-12;
    bool reached = false;
    for (std::size_t end = confidence_.size(); end > 0;) {
      double here = 0.0, wrong_here = 0.0;
      const double confidence = confidence_[end - 1];
      for (; end > 0 && confidence_[end - 1] == confidence; --end) {
        here += weight_[end - 1];
        wrong_here += weight_[end - 1] * wrong_[end - 1];
      }
      if (here == 0.0) continue;
      const double share = wrong_here / here;
      for (double j = 1.0; j <= here; ++j) area += (wrong + share * j) / (answered + j);
      answered += here;
      wrong += wrong_here;
      if (!reached && answered >= enough) {
        reached = true;
        risk = wrong / answered;
      }
      if (wrong <= most * answered) coverage = answered / rows_;
    }
    values[0] = rows_ > 0.0 ? area / rows_ : kNaN;
    values[1] = risk;
    values[2] = rows_ > 0.0 ? coverage : kNaN;
  }

  const EpisodeAnswers& all_;
  std::size_t bins_;
  std::vector<Sums> sums_;
  // The answers in ascending order of confidence.
  std::vector<double> confidence_, wrong_;
  std::vector<std::uint32_t> episode_;
  /// The current weights of the answers, and the sum of the weights before each answer.
  std::vector<double> weight_, passed_;
  std::vector<double> rows_of_class_;
  double rows_ = 0.0, brier_ = 0.0;
};

EpisodeAnswers::EpisodeAnswers(UncertaintyOptions options) : options_(options) {
  if (options.bins == 0) throw Error("calibration: number of bins is 0, expected at least 1");
}

void EpisodeAnswers::add_episode(std::span<const double> probabilities,
                                 std::span<const std::int32_t> labels, std::size_t classes) {
  const std::vector<Answer> given = metrics::answers(probabilities, labels, classes);
  std::vector<Cell> cells((classes + 1) * options_.bins);
  const auto put = [&](std::size_t group, double p, bool right) {
    const std::size_t index = group * options_.bins + bin_of(p, options_.bins, options_.edges);
    Cell& cell = cells[index];
    cell.index = static_cast<std::uint32_t>(index);
    ++cell.count;
    cell.right += right ? 1 : 0;
    cell.sum += p;
  };
  Episode episode{.first_cell = cells_.size(), .rows = labels.size(), .classes = classes};
  for (std::size_t r = 0; r < labels.size(); ++r) {
    put(0, given[r].confidence, given[r].right);
    for (std::size_t c = 0; c < classes; ++c) {
      const bool is = static_cast<std::size_t>(labels[r]) == c;
      const double p = probabilities[r * classes + c];
      put(c + 1, p, is);
      episode.brier += (p - (is ? 1.0 : 0.0)) * (p - (is ? 1.0 : 0.0));
    }
  }
  std::ranges::copy_if(cells, std::back_inserter(cells_),
                       [](const Cell& c) { return c.count > 0; });
  episode.last_cell = cells_.size();
  answers_.insert(answers_.end(), given.begin(), given.end());
  episode_of_.insert(episode_of_.end(), given.size(), static_cast<std::uint32_t>(episodes_.size()));
  episodes_.push_back(episode);
  most_classes_ = std::max(most_classes_, classes);
}

UncertaintyStatistics EpisodeAnswers::statistics(const BootstrapOptions& options) const {
  Pass pass(*this);
  const std::vector<Interval> v = bootstrap_all(
      episodes(), Pass::count,
      [&](std::span<const std::uint32_t> weights, std::span<double> values) {
        pass(weights, values);
      },
      options);
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10]};
}

}  // namespace kshot::metrics
