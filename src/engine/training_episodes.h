// Where the episodes of training steps are drawn: by the backend, where it computes, or by the
// host. They are the same, bit for bit.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "kshot/episode.h"

namespace kshot {

struct TrainingEpisodes {
  std::shared_ptr<const backend::Episodes> on_device;  ///< null: by the host
  std::string text;  ///< for the line about the device; empty where there is no choice
};

/// Asks the backend to draw the source's training tasks by itself. Before its waves are planned,
/// which share its memory.
TrainingEpisodes place_episodes(backend::Backend& backend, const EpisodeSource& source);

}  // namespace kshot
