// The emulator as a test sees it: what can be set, what it reports, what it counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace kshot::simt {

/// Order in which threads of a block (and blocks of a grid) run where nothing orders them. Random
/// order is drawn anew after every barrier.
enum class Order { ascending, descending, random };

struct Settings {
  Order order = Order::ascending;
  std::uint64_t seed = 1;  ///< of the random order
  /// Work on streams waits until something waits for it, so that a missing synchronisation shows.
  bool lazy = false;
  std::size_t memory = std::size_t{8} << 30;  ///< bytes of the emulated device
  int devices = 1;
  int compute_capability = 90;  ///< 10 * major + minor
  int driver_version = 13000;   ///< 1000 * major + 10 * minor; older than 13.0: too old
  /// Returned by every call of the runtime while it is not 0 (cudaSuccess): a lost device.
  int sticky_error = 0;
  /// The device is lost within this launch of a kernel, counted from the program's begin: it does
  /// not run, and sticky_error is set. 0: never.
  std::uint64_t lost_at_kernel = 0;
};
Settings& settings();

/// A kernel or a call of the runtime broke a rule that a device would not report, or not clearly.
/// One line: the kernel, its block and threads, what they did and where.
class Failure : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// What has been done since the program began.
struct Counters {
  std::uint64_t kernels = 0;   ///< launched, those of graphs included
  std::uint64_t accesses = 0;  ///< to shared and device memory, by kernels
  std::uint64_t bytes_to_device = 0, bytes_to_host = 0;  ///< copied
  std::uint64_t graphs_made = 0, graphs_updated = 0, graphs_launched = 0;
  /// Calls in which the host waits for the device: for a stream, an event or all, for a copy from
  /// or to memory that is not pinned, for memory to be taken or given back.
  std::uint64_t host_waits = 0;
};
const Counters& counters();

/// Device allocations alive, and their bytes.
std::size_t live_allocations();
std::size_t allocated_bytes();

}  // namespace kshot::simt
