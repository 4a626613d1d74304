#include "backend/cuda/cuda_episodes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "base/episode_stream.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// Share of the available memory that the rows of a source may take.
constexpr double row_share = 0.5;

const std::vector<ClassRecipe::Group>& groups_of(const ClassRecipe& recipe, Split split) {
  return recipe.groups[static_cast<std::size_t>(split)];
}

/// Calls run(first, rows) for each sequence of contiguous rows of a split, in the order of its
/// groups.
template <class Run>
void for_runs(const std::vector<ClassRecipe::Group>& groups, const Run& run) {
  for (std::size_t g = 0; g < groups.size();) {
    const std::uint64_t first = groups[g].first;
    std::uint64_t end = first;
    for (; g < groups.size() && groups[g].first == end; ++g) end += groups[g].rows;
    run(static_cast<std::size_t>(first), static_cast<std::size_t>(end - first));
  }
}

std::size_t row_count(const ClassRecipe& recipe, Split split) {
  std::size_t rows = 0;
  for (const ClassRecipe::Group& group : groups_of(recipe, split)) rows += group.rows;
  return rows;
}

std::size_t element_bytes(const ClassRecipe& recipe) {
  return recipe.element == ClassRecipe::Element::u8 ? 1 : sizeof(float);
}

/// True if all numbers of a split's rows are finite. The device does not check the tasks that it
/// draws, as TaskRows::load checks those of the host. Sinusoids are finite by their ranges.
bool rows_finite(const ClassRecipe& recipe, Split split) {
  if (recipe.element == ClassRecipe::Element::u8) return true;
  bool finite = true;
  for_runs(groups_of(recipe, split), [&](std::size_t first, std::size_t rows) {
    const auto* from =
        reinterpret_cast<const float*>(recipe.stored.data()) + first * recipe.features;
    finite = finite && std::all_of(from, from + rows * recipe.features,
                                   [](float x) { return std::isfinite(x); });
  });
  return finite;
}

std::vector<float> unit_length_factors(const ClassRecipe& recipe, Split split) {
  std::vector<float> factors, row(recipe.features);
  const std::size_t bytes = recipe.features * element_bytes(recipe);
  for (const ClassRecipe::Group& group : groups_of(recipe, split)) {
    for (std::uint64_t r = group.first; r < group.first + group.rows; ++r) {
      const std::byte* const from = recipe.stored.data() + r * bytes;
      if (recipe.element == ClassRecipe::Element::f32) {
        std::memcpy(row.data(), from, bytes);
      } else {
        std::transform(from, from + bytes, row.begin(),
                       [](std::byte x) { return stored_number(std::to_integer<std::uint8_t>(x)); });
      }
      factors.push_back(unit_length_factor(row));
    }
  }
  return factors;
}

}  // namespace

CudaEpisodes::Classes CudaEpisodes::load_classes(const Stream& stream, const ClassRecipe& recipe,
                                                 Split split) {
  const std::vector<ClassRecipe::Group>& groups = groups_of(recipe, split);
  const std::size_t numbers = row_count(recipe, split) * recipe.features;
  Classes made;
  const auto put_rows = [&](auto& to) {
    std::size_t at = 0;
    for_runs(groups, [&](std::size_t first, std::size_t rows) {
      using Number = std::remove_reference_t<decltype(*to.data())>;
      const auto* from = reinterpret_cast<const Number*>(recipe.stored.data());
      stream.to_device(to.data() + at, from + first * recipe.features, rows * recipe.features);
      at += rows * recipe.features;
    });
  };
  if (recipe.element == ClassRecipe::Element::u8) {
    made.pixels = DeviceMemory<std::uint8_t>(numbers);
    put_rows(made.pixels);
  } else {
    made.numbers = DeviceMemory<float>(numbers);
    put_rows(made.numbers);
  }
  if (recipe.unit_length) {
    const std::vector<float> factors = unit_length_factors(recipe, split);
    made.factors = DeviceMemory<float>(factors.size());
    stream.to_device(made.factors.data(), factors.data(), factors.size());
  }
  if (recipe.check_stored) recipe.check_stored();
  std::vector<RowGroup> packed;
  std::uint32_t first = 0;
  for (const ClassRecipe::Group& group : groups) {
    packed.push_back({first, group.rows});
    first += group.rows;
  }
  made.groups = DeviceMemory<RowGroup>(packed.size());
  stream.to_device(made.groups.data(), packed.data(), packed.size());
  made.draw = {made.groups.data(), static_cast<std::uint32_t>(packed.size()), recipe.ways,
               recipe.shots, recipe.queries};
  made.features = static_cast<int>(recipe.features);
  return made;
}

CudaEpisodes::CudaEpisodes(const Stream& stream, const EpisodeRecipe& recipe, Split split)
    : shape_(recipe.shape), split_(split) {
  if (const auto* sinusoids = std::get_if<SinusoidOptions>(&recipe.method)) {
    method_ = sinusoid_ranges(*sinusoids);
  } else {
    method_ = load_classes(stream, std::get<ClassRecipe>(recipe.method), split);
  }
}

int CudaEpisodes::shots() const {
  const auto* classes = std::get_if<Classes>(&method_);
  return classes ? classes->draw.shots : 0;
}

template <class T>
void CudaEpisodes::draw(const EpisodeArrays<T>& to, std::uint32_t* stored_rows, const TaskId& id,
                        cudaStream_t stream) const {
  const RandomKey key = episode_key(id);
  if (const auto* ranges = std::get_if<SinusoidRanges>(&method_)) {
    return draw_sinusoids(to, *ranges, key, stream);
  }
  const auto& classes = std::get<Classes>(method_);
  draw_classes(stored_rows, to, classes.draw, key, stream);
  const float* const factors = classes.factors.data();
  if (classes.pixels.size() > 0) {
    gather_rows(to, classes.pixels.data(), factors, stored_rows, classes.features, stream);
  } else {
    gather_rows(to, classes.numbers.data(), factors, stored_rows, classes.features, stream);
  }
}

backend::EpisodePlace place_episodes(const Stream& stream, const EpisodeRecipe& recipe, Split split,
                                     std::size_t available) {
  backend::EpisodePlace place;
  if (const auto* classes = std::get_if<ClassRecipe>(&recipe.method)) {
    const std::size_t rows = row_count(*classes, split);
    place.bytes = rows * classes->features * element_bytes(*classes) +
                  (classes->unit_length ? rows * sizeof(float) : 0) +
                  groups_of(*classes, split).size() * sizeof(RowGroup);
    const int places = std::max(classes->ways, classes->shots + classes->queries);
    if (places > most_places) {
      place.reason =
          fmt::format("{} classes, or examples of one, are more than {}", places, most_places);
    } else if (rows > std::numeric_limits<std::uint32_t>::max()) {
      place.reason = fmt::format("{} rows are more than 2^32", rows);
    } else if (static_cast<double>(place.bytes) > row_share * static_cast<double>(available)) {
      place.reason = fmt::format("the rows take {}, more than half of the {} at hand",
                                 bytes_text(place.bytes), bytes_text(available));
    }
    if (place.reason.empty() && !rows_finite(*classes, split)) {
      place.reason = "some of the rows hold numbers that are not finite";
    }
    if (!place.reason.empty()) {
      place.bytes = 0;
      return place;
    }
  }
  place.episodes = std::make_shared<const CudaEpisodes>(stream, recipe, split);
  return place;
}

template void CudaEpisodes::draw(const EpisodeArrays<float>&, std::uint32_t*, const TaskId&,
                                 cudaStream_t) const;
template void CudaEpisodes::draw(const EpisodeArrays<double>&, std::uint32_t*, const TaskId&,
                                 cudaStream_t) const;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
