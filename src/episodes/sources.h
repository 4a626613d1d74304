// Episode sources made from a configuration or a data file.
#pragma once

#include <array>
#include <memory>
#include <span>

#include "io/dataset.h"
#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

inline constexpr std::array all_splits = {Split::train, Split::validation, Split::test};

/// The data file that [data] names, opened; null where data.source is not "file". Throws Error for
/// a file that cannot be read.
std::shared_ptr<const io::Dataset> open_data(const Config& config);
/// The source that [data] describes, on the file that `open_data` gave. Throws Error naming the key
/// or the file where the splits in `used` have too few classes, tasks or examples for the episodes
/// asked for. Another split of that kind counts as one without episodes.
std::unique_ptr<EpisodeSource> make_source(const Config& config,
                                           std::shared_ptr<const io::Dataset> data,
                                           std::span<const Split> used = all_splits);
/// The same with the file opened here.
std::unique_ptr<EpisodeSource> make_source(const Config& config,
                                           std::span<const Split> used = all_splits);

/// What data.unit_length asks for, on rows of `width` features; a row of zeros stays.
void scale_to_unit_length(std::span<float> rows, std::size_t width);

/// Every episode draws its own numbers from the ranges; all classes of an episode have the same.
struct ClassEpisodes {
  CountRange ways = 5;
  CountRange shots = 1;     ///< support examples of a class
  CountRange queries = 15;  ///< query examples of a class

  /// Whether all episodes have the same numbers of classes and rows.
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
/// N-way K-shot episodes from a file of classes: classes, and examples of a class, are drawn
/// without replacement. Rows stand class by class, in the order the classes were drawn: labels 0,
/// ..., N - 1. Throws Error where a class has fewer examples than the largest numbers ask for.
std::unique_ptr<EpisodeSource> make_class_source(std::shared_ptr<const io::Dataset> data,
                                                 const ClassEpisodes& episodes,
                                                 std::span<const Split> used = all_splits);

/// For a plain classifier: a task is `rows` examples of any of the training classes, drawn without
/// replacement, as query rows; the label is the class's place among them. There are no support
/// rows. The last tenth of each class's examples (rounded down) is held out: validation and test
/// minibatches are drawn from those.
std::unique_ptr<EpisodeSource> make_minibatch_source(std::shared_ptr<const io::Dataset> data,
                                                     int rows,
                                                     std::span<const Split> used = all_splits);

struct TableEpisodes {
  CountRange shots = 10;    ///< support rows; every episode draws its own number
  CountRange queries = 10;  ///< query rows; the same
  /// Tasks with labels: the numbers are of each class that the task has. Rows then stand class by
  /// class.
  bool stratified = false;
  /// A task (or a class of it) may have n < shots + queries rows: then min(shots, n - 1) of them
  /// are support rows and the others are query rows. Where this is false, every task (or class of
  /// it) must have as many rows as the largest numbers ask for.
  bool variable_size = false;
  /// Tasks with fewer rows than that (with variable_size: than 2) are left out; else they are an
  /// Error.
  bool skip_small = false;
};
/// Episodes from a file of tasks: one of the tasks, its support and query rows drawn without
/// replacement.
std::unique_ptr<EpisodeSource> make_table_source(std::shared_ptr<const io::Dataset> data,
                                                 const TableEpisodes& episodes,
                                                 std::span<const Split> used = all_splits);

/// `tasks` training tasks, each the same whenever it is drawn: episode `member` of `source`'s first
/// step. Validation and test episodes are the source's own.
std::unique_ptr<EpisodeSource> make_fixed_source(std::unique_ptr<EpisodeSource> source,
                                                 std::uint32_t tasks);

struct PermutedEpisodes {
  ClassEpisodes episodes;
  bool pixels = false;    ///< permute pixels; else labels
  int pixel_swaps = 200;  ///< of a pixel permutation
};
/// Tasks that share their classes and differ in a permutation of labels or pixels (Amit & Meir
/// 2018, 5): `ways` of the training classes, the same in all tasks. A quarter of each class's
/// examples is kept for the queries of validation and test tasks; all other rows come from the
/// rest.
std::unique_ptr<EpisodeSource> make_permuted_source(std::shared_ptr<const io::Dataset> data,
                                                    const PermutedEpisodes& options,
                                                    std::span<const Split> used = all_splits);

}  // namespace kshot
