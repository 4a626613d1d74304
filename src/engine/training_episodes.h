// Decides where the episodes of training steps are drawn: on the device, or by the host. The
// episodes are the same, bit for bit.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "kshot/episode.h"

namespace kshot {

/// The place where training episodes are drawn.
struct TrainingEpisodes {
  std::shared_ptr<const backend::Episodes> on_device;  ///< null: the host draws
  std::string text;  ///< for the line about the device; empty where there is no choice
};

/// Asks the backend to draw the source's training tasks by itself. Called before the backend's
/// waves are planned, because both share its memory.
TrainingEpisodes place_episodes(backend::Backend& backend, const EpisodeSource& source);

}  // namespace kshot
