#include "engine/baselines.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "metrics/baselines.h"
#include "metrics/pair_baselines.h"

namespace kshot {
namespace {

/// Largest system that a baseline solves for an episode, and largest number of multiplications that
/// form it. They take some tenths of a second.
constexpr std::size_t kLargestSystem = 1024;
constexpr double kMostProducts = 1e9;

std::vector<double> repeated(const std::vector<double>& row, int rows) {
  std::vector<double> all;
  all.reserve(row.size() * static_cast<std::size_t>(rows));
  for (int i = 0; i < rows; ++i) all.insert(all.end(), row.begin(), row.end());
  return all;
}

/// Returns why a system of `size` unknowns, which takes `products` multiplications, is not solved,
/// or an empty text.
std::string too_large(std::size_t size, double products, std::size_t support_n, std::size_t dim) {
  if (size <= kLargestSystem && products <= kMostProducts) return {};
  return fmt::format(
      "{} support rows of {} features are too many: it takes systems of at most {} unknowns and "
      "{:.0e} multiplications",
      support_n, dim, kLargestSystem, kMostProducts);
}

/// One episode, as the baselines see it.
class Episode {
 public:
  Episode(const EpisodePrediction& p)
      : features_{p.support_x(), p.query_x(),
                  static_cast<std::size_t>(p.batch->shape().input.size())},
        support_n_(features_.support.size() / features_.dim),
        query_n_(features_.query.size() / features_.dim) {
    const double pairs =
        static_cast<double>(support_n_) * static_cast<double>(support_n_ + query_n_);
    const auto dim = static_cast<double>(features_.dim);
    pairs_too_large_ = too_large(support_n_, pairs * dim, support_n_, features_.dim);
    const std::size_t smaller = std::min(support_n_, features_.dim);
    covariance_too_large_ =
        too_large(smaller, static_cast<double>(smaller) * static_cast<double>(support_n_) * dim,
                  support_n_, features_.dim);
    if (!pairs_too_large_.empty() || support_n_ == 0 || query_n_ == 0) return;
    distances_ = metrics::squared_distances(features_);
    binary_ = metrics::is_binary(features_);
    if (binary_) similarities_ = metrics::tanimoto_similarities(features_);
  }

  const metrics::Features& features() const { return features_; }
  std::size_t support_n() const { return support_n_; }
  const std::string& covariance_too_large() const { return covariance_too_large_; }

  Entry by_distances(const std::function<Entry(const metrics::RowPairs&)>& predict) const {
    return pairs_too_large_.empty() ? predict(distances_) : Entry{.missing = pairs_too_large_};
  }
  Entry by_similarities(const std::function<Entry(const metrics::RowPairs&)>& predict) const {
    if (!pairs_too_large_.empty()) return {.missing = pairs_too_large_};
    return binary_ ? predict(similarities_) : Entry{.missing = not_applicable};
  }

 private:
  metrics::Features features_;
  std::size_t support_n_, query_n_;
  std::string pairs_too_large_, covariance_too_large_;
  bool binary_ = false;
  metrics::RowPairs distances_, similarities_;
};

std::vector<Entry> classifiers(const Episode& episode, std::span<const std::int32_t> labels,
                               std::size_t classes) {
  const metrics::Features& x = episode.features();
  const metrics::LogisticRegression logistic(x.support, x.dim, labels, classes);
  std::vector<Entry> entries;
  entries.push_back({metrics::nearest_centroid(x, labels, classes)});
  entries.push_back(episode.covariance_too_large().empty()
                        ? Entry{metrics::mahalanobis(x, labels, classes)}
                        : Entry{.missing = episode.covariance_too_large()});
  entries.push_back(episode.by_distances([&](const metrics::RowPairs& distances) {
    return Entry{metrics::nearest_neighbour_classes(distances, labels, classes)};
  }));
  entries.push_back({logistic.predict(x.query)});
  entries.push_back(episode.by_distances([&](const metrics::RowPairs& distances) {
    return Entry{
        metrics::gaussian_process_classes(metrics::Kernel::rbf, distances, labels, classes)};
  }));
  entries.push_back(episode.by_similarities([&](const metrics::RowPairs& similarities) {
    return Entry{metrics::gaussian_process_classes(metrics::Kernel::tanimoto, similarities, labels,
                                                   classes)};
  }));
  return entries;
}

std::vector<Entry> regressors(const Episode& episode, std::span<const float> values,
                              std::size_t outputs, int rows) {
  const metrics::Features& x = episode.features();
  const metrics::RidgeRegression ridge(x.support, x.dim, values, outputs);
  const auto process = [&](metrics::Kernel kernel, const metrics::RowPairs& pairs) {
    metrics::GaussianProcessFit fit = metrics::gaussian_process(kernel, pairs, values, outputs);
    return Entry{.values = std::move(fit.mean), .noise = std::move(fit.std)};
  };
  std::vector<Entry> entries;
  entries.push_back({repeated(metrics::support_mean(values, outputs), rows)});
  entries.push_back(episode.by_distances([&](const metrics::RowPairs& distances) {
    return Entry{metrics::nearest_neighbour_values(distances, values, outputs)};
  }));
  entries.push_back({ridge.predict(x.query)});
  entries.push_back(episode.by_distances([&](const metrics::RowPairs& distances) {
    return process(metrics::Kernel::rbf, distances);
  }));
  entries.push_back(episode.by_similarities([&](const metrics::RowPairs& similarities) {
    return process(metrics::Kernel::tanimoto, similarities);
  }));
  return entries;
}

}  // namespace

const std::vector<std::string>& baseline_names(bool classify) {
  static const std::vector<std::string> labels = {
      "nearest centroid", "mahalanobis", "knn", "logistic regression", "gp_rbf", "gp_tanimoto"};
  static const std::vector<std::string> values = {"support mean", "knn", "ridge regression",
                                                  "gp_rbf", "gp_tanimoto"};
  return classify ? labels : values;
}

std::vector<Entry> predict_baselines(const EpisodePrediction& p, bool classify) {
  const Episode episode(p);
  if (episode.support_n() == 0) {
    return std::vector<Entry>(baseline_names(classify).size(),
                              Entry{.missing = "there are no support rows to learn from"});
  }
  const auto outputs = static_cast<std::size_t>(p.outputs_n);
  return classify ? classifiers(episode, p.support_labels(), outputs)
                  : regressors(episode, p.support_values(), outputs, p.rows);
}

}  // namespace kshot
