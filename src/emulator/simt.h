// The interface of the emulator to tests: settings, reports and counters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace kshot::simt {

/// The order in which threads of a block (and blocks of a grid) run where nothing orders them. A
/// random order is drawn again after every barrier.
enum class Order { ascending, descending, random };

struct Settings {
  Order order = Order::ascending;
  std::uint64_t seed = 1;  ///< seed of the random order
  /// Work on streams is put off until something waits for it, so that a missing synchronisation is
  /// detected.
  bool lazy = false;
  std::size_t memory = std::size_t{8} << 30;  ///< bytes of the emulated device
  int devices = 1;
  int compute_capability = 90;  ///< 10 * major + minor
  int driver_version = 13000;   ///< 1000 * major + 10 * minor; versions below 13.0 are too old
  /// If it is not 0 (cudaSuccess), every call of the runtime returns it, as on a device that is
  /// lost.
  int sticky_error = 0;
  /// The launch, counted from the start of the program, in which the device is lost: the kernel
  /// does not run, and sticky_error is set. 0: never.
  std::uint64_t lost_at_kernel = 0;
};
Settings& settings();

/// A kernel or a call of the runtime broke a rule that a device would not report, or not clearly.
/// The message is one line with the kernel, its block and threads, what they did and where.
class Failure : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// What has been done since the start of the program.
struct Counters {
  std::uint64_t kernels = 0;   ///< launched, including those of graphs
  std::uint64_t accesses = 0;  ///< to shared and device memory, by kernels
  std::uint64_t bytes_to_device = 0, bytes_to_host = 0;  ///< copied
  std::uint64_t graphs_made = 0, graphs_updated = 0, graphs_launched = 0;
  /// Calls in which the host waits for the device: for a stream, an event or the whole device, for
  /// a copy from or to memory that is not pinned, and for the allocation or release of memory.
  std::uint64_t host_waits = 0;
};
const Counters& counters();

/// The number of live device allocations, and of their bytes.
std::size_t live_allocations();
std::size_t allocated_bytes();

}  // namespace kshot::simt
