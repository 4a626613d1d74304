// Makes episode sources from a configuration or a data file.
#pragma once

#include <array>
#include <memory>
#include <span>

#include "data/dataset.h"
#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

inline constexpr std::array all_splits = {Split::train, Split::validation, Split::test};

/// Opens the data file of [data]. Returns null if data.source is not "file". Throws Error for a
/// file that cannot be read.
std::shared_ptr<const data::Dataset> open_data(const Config& config);
/// Makes the source that [data] describes, on the file from `open_data`. Throws Error with the key
/// or the file where a split in `used` has too few classes, tasks or examples for the requested
/// episodes. A split outside of `used` with too few of them is treated as a split without episodes.
std::unique_ptr<EpisodeSource> make_source(const Config& config,
                                           std::shared_ptr<const data::Dataset> data,
                                           std::span<const Split> used = all_splits);
/// Makes the source as above, and opens the file itself.
std::unique_ptr<EpisodeSource> make_source(const Config& config,
                                           std::span<const Split> used = all_splits);

/// Scales rows of `width` features to unit length, as data.unit_length requests. A row of zeros
/// stays.
void scale_to_unit_length(std::span<float> rows, std::size_t width);

/// Sizes of episodes. Every episode draws its own numbers from the ranges, and all classes of an
/// episode have equal numbers.
struct ClassEpisodes {
  CountRange ways = 5;
  CountRange shots = 1;     ///< support examples per class
  CountRange queries = 15;  ///< query examples per class

  /// Returns true if all episodes have equal numbers of classes and rows.
  bool fixed() const { return ways.fixed() && shots.fixed() && queries.fixed(); }
  TaskShape shape(const FeatureShape& input) const {
    return {.input = input,
            .outputs = ways.most,
            .target = TargetKind::label,
            .support = ways.most * shots.most,
            .query = ways.most * queries.most,
            .ways_vary = !ways.fixed()};
  }
};
/// N-way K-shot episodes from a file of classes. Classes, and examples of a class, are drawn
/// without replacement. Rows are sorted by class, in the order in which the classes were drawn,
/// with labels 0, ..., N - 1. Throws Error where a class has fewer examples than the largest
/// numbers require.
std::unique_ptr<EpisodeSource> make_class_source(std::shared_ptr<const data::Dataset> data,
                                                 const ClassEpisodes& episodes,
                                                 std::span<const Split> used = all_splits);

/// Minibatches for an ordinary classifier. A task has `rows` examples of any of the training
/// classes, drawn without replacement, as query rows, and no support rows. The label is the index
/// of the class among the training classes. The last tenth of each class's examples (rounded down)
/// is held out for validation and test minibatches.
std::unique_ptr<EpisodeSource> make_minibatch_source(std::shared_ptr<const data::Dataset> data,
                                                     int rows,
                                                     std::span<const Split> used = all_splits);

struct TableEpisodes {
  CountRange shots = 10;    ///< support rows; every episode draws its own number
  CountRange queries = 10;  ///< query rows; every episode draws its own number
  /// Only for tasks with labels: the numbers are per class of the task, and rows are sorted by
  /// class.
  bool stratified = false;
  /// If true, a task (or a class of it) may have n < shots + queries rows: min(shots, n - 1) of
  /// them are then support rows and the others are query rows. If false, every task (or class of
  /// it) must have as many rows as the largest numbers require.
  bool variable_size = false;
  /// If true, tasks with fewer rows than required (with variable_size: fewer than 2) are left out.
  /// If false, they are an Error.
  bool skip_small = false;
};
/// Episodes from a file of tasks. An episode is one of the tasks, with support and query rows drawn
/// without replacement.
std::unique_ptr<EpisodeSource> make_table_source(std::shared_ptr<const data::Dataset> data,
                                                 const TableEpisodes& episodes,
                                                 std::span<const Split> used = all_splits);

/// Restricts training to `tasks` fixed tasks. Task `member` is always task `member` of step 0 of
/// `source`. Validation and test episodes are those of `source`.
std::unique_ptr<EpisodeSource> make_fixed_source(std::unique_ptr<EpisodeSource> source,
                                                 std::uint32_t tasks);

struct PermutedEpisodes {
  ClassEpisodes episodes;
  bool pixels = false;    ///< permute pixels; false: permute labels
  int pixel_swaps = 200;  ///< number of swaps in a pixel permutation
};
/// Tasks that share their classes and differ in a permutation of labels or pixels (Amit & Meir
/// 2018, section 5). All tasks have the same `ways` training classes. A quarter of each class's
/// examples is reserved for the queries of validation and test tasks. All other rows come from the
/// remaining examples.
std::unique_ptr<EpisodeSource> make_permuted_source(std::shared_ptr<const data::Dataset> data,
                                                    const PermutedEpisodes& options,
                                                    std::span<const Split> used = all_splits);

}  // namespace kshot
