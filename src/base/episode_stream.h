// The random stream from which an episode is drawn. It is a function of the TaskId alone.
#pragma once

#include "kshot/episode.h"
#include "kshot/random.h"

namespace kshot {

/// Seed of a split's episodes: SplitMix64's finaliser (Steele et al. 2014), applied to seed and
/// split. No two splits of a run, and no neighbouring seeds, share episodes.
constexpr std::uint64_t episode_seed(std::uint64_t seed, Split split) {
  std::uint64_t z = seed + 0x9E3779B97F4A7C15ull * (static_cast<std::uint64_t>(split) + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// The key of an episode's stream. `part` < 2^16 selects one of its independent streams, so that
/// one part of an episode stays the same when another one changes. For example, the query set is
/// the same for any number of shots.
inline RandomKey episode_key(const TaskId& id, std::uint32_t part = 0) {
  RandomKey key;
  key.seed = episode_seed(id.seed, id.split);
  key.purpose = Purpose::episode;
  key.step = id.step;
  key.task = id.task;
  key.sample = part;
  return key;
}
inline RandomStream episode_stream(const TaskId& id, std::uint32_t part = 0) {
  return RandomStream(episode_key(id, part));
}

}  // namespace kshot
