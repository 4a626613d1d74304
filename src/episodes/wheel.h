// The wheel bandit (Riquelme, Tucker and Snoek 2018, section 5.4), shared by the meta-training
// episodes (make_wheel_source) and by the environment that agents play (src/bandit).
//
// A context is a point x, uniform in the unit disc. Arms 0 to 3 belong to the quadrants, and arm 4
// is the safe one. Rewards are Gaussian with equal standard deviations and these means:
//   arm 4                                   1.2, everywhere
//   arms 0 to 3, where ||x|| <= delta       1.0
//   arms 0 to 3, where ||x|| >  delta       50 for the arm of the context's quadrant, else 1.0
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <span>

#include "kshot/count_range.h"
#include "kshot/episode.h"
#include "kshot/random.h"

namespace kshot {

inline constexpr int wheel_arms = 5;
inline constexpr int wheel_safe_arm = 4;
inline constexpr int wheel_context = 2;
/// Inputs of the networks: the context, then one number per arm, which is 1 for the pulled arm.
inline constexpr int wheel_inputs = wheel_context + wheel_arms;

inline constexpr double wheel_inner_mean = 1.0, wheel_safe_mean = 1.2, wheel_outer_mean = 50.0;

/// Draws a context [2], uniform in the unit disc.
void draw_wheel_context(RandomStream& stream, std::span<float> x);
/// Returns the arm of the quadrant: 0 (x >= 0, y >= 0), 1 (x >= 0, y < 0), 2 (x < 0, y >= 0), 3.
int wheel_quadrant(std::span<const float> x);
/// Mean reward of an arm in a context.
double wheel_mean(std::span<const float> x, int arm, double delta);

/// Mean and standard deviation of the reward of a random arm in a random context, with delta
/// uniform in (0, 1). Networks see (reward - mean) / std.
struct RewardScale {
  double mean = 0.0, std = 1.0;
  float standardised(double reward) const { return static_cast<float>((reward - mean) / std); }
};
RewardScale wheel_reward_scale(double noise_std);

/// Writes the network's inputs for a context and an arm: [context..., one number per arm].
void write_arm_inputs(std::span<const float> context, int arm, int arms, std::span<float> inputs);

struct WheelEpisodes {
  CountRange support = 512;  ///< contexts; every task draws its own number
  CountRange query = 50;
  double noise_std = 0.01;  ///< standard deviation of the rewards, in the rewards' units
  /// False: a row is (context, arm, reward of the arm), with a random arm. True: every context
  /// gives one row per arm.
  bool all_arms = false;
  int problems = 0;  ///< number of training problems (values of delta); 0: a new one per task
};
/// Meta-training tasks: tuples of a wheel problem with delta uniform in (0, 1). Each validation and
/// test task has its own delta. Throws Error for numbers out of range.
std::unique_ptr<EpisodeSource> make_wheel_source(const WheelEpisodes& options);

}  // namespace kshot
