#include "engine/training_episodes.h"

#include <fmt/format.h>

#include <utility>

namespace kshot {

TrainingEpisodes place_episodes(backend::Backend& backend, const EpisodeSource& source) {
  backend::EpisodePlace place;
  if (const EpisodeRecipe* const recipe = source.recipe()) {
    place = backend.place(*recipe, Split::train);
  } else if (backend.asynchronous()) {
    place.reason = "the device cannot draw from this source";
  }
  TrainingEpisodes episodes;
  if (place.episodes) {
    episodes.text = "episodes drawn on the device";
    if (place.bytes > 0) {
      episodes.text +=
          fmt::format(" from {:.3g} MiB of rows", static_cast<double>(place.bytes) / 0x1p20);
    }
  } else if (!place.reason.empty()) {
    episodes.text = fmt::format("episodes drawn by the host ({})", place.reason);
  }
  episodes.on_device = std::move(place.episodes);
  return episodes;
}

}  // namespace kshot
