// The processes that train or evaluate together. Each is a rank, from 0 to size - 1.
//
//   kshot::Trainer trainer(config, {.run_folder = "runs/first", .ranks = kshot::launched_ranks()});
//
// Every rank makes the same calls in the same order. Results do not depend on the number of ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace kshot {

/// Exchanges between ranks. Every exchange tells all ranks when one of them has failed. Every
/// exchange has a time limit, so that no rank waits for one that is gone. Not thread-safe.
class Communicator {
 public:
  using Bytes = std::vector<std::byte>;  ///< The bytes that one rank sends or gets.

  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }              ///< Number of this rank, from 0.
  int size() const { return size_; }              ///< Number of ranks.
  int local_rank() const { return local_rank_; }  ///< Number of this rank on this machine, from 0.
  int local_size() const { return local_size_; }  ///< Number of ranks on this machine.
  /// The library and the number of ranks, "Open MPI v4.1.4, 4 ranks".
  virtual std::string describe() const = 0;

  // Exchanges. `what` names the exchange in messages ("the gradient"). All throw Error where a rank
  // has failed; the message is "rank N: " and the message of that rank.
  /// Returns the bytes of every rank, in the order of the ranks.
  std::vector<Bytes> all_gather(std::span<const std::byte> mine, const char* what);
  /// Returns the numbers of every rank, in the order of the ranks.
  std::vector<std::vector<double>> all_gather(std::span<const double> mine, const char* what);
  /// Sends to[r] to rank r. Returns the bytes that each rank has sent to this one.
  std::vector<Bytes> all_to_all(const std::vector<Bytes>& to, const char* what);
  /// Returns once every rank has called this function.
  void barrier(const char* what);

  /// Tells the other ranks that this one cannot go on: their next exchange throws. Does nothing
  /// after an exchange that has thrown, because every rank knows already.
  void fail(const std::string& message) noexcept;
  /// True once an exchange has thrown or this rank has failed. No exchange is possible then.
  bool failed() const { return failed_; }
  /// The message to print: that of the first rank that failed. It begins with "rank N: ", unless
  /// all ranks failed with the same message.
  const std::string& failure() const { return failure_; }

  /// Most seconds that an exchange may take.
  virtual double time_limit() const { return 300.0; }
  /// Ends the program because a rank has not come within the time limit, and says which rank. Code
  /// that waits outside of an exchange (NCCL) calls this. Throws Error where the ranks cannot be
  /// ended.
  [[noreturn]] virtual void give_up(const char* what);

  /// Sends flags to all ranks with the next exchange.
  void raise(std::uint32_t flags) { raised_ |= flags; }
  /// The flags that any rank has sent with an exchange so far. Between two exchanges, all ranks see
  /// the same flags.
  std::uint32_t flags() const { return flags_; }
  void clear_flags() { flags_ = 0; }  ///< Forgets the flags that were sent so far.

 protected:
  /// The arguments are what the functions of the same names return.
  Communicator(int rank, int size, int local_rank, int local_size)
      : rank_(rank), size_(size), local_rank_(local_rank), local_size_(local_size) {}

  // The transport. Each function returns when this rank's part is done. It does not return where a
  // rank comes too late.
  /// Every rank sends the same number of bytes. `all` gets the bytes of all ranks, one after
  /// another.
  virtual void gather_equal(std::span<const std::byte> mine, std::span<std::byte> all,
                            const char* what) = 0;
  /// Rank r sends sizes[r] bytes. `all` gets the bytes of all ranks, one after another.
  virtual void gather_varied(std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                             std::span<std::byte> all, const char* what) = 0;
  /// Sends to_sizes[r] bytes to rank r, and gets from_sizes[r] bytes from rank r. The bytes lie one
  /// rank after another in `to` and `from`.
  virtual void scatter_varied(std::span<const std::byte> to, std::span<const std::size_t> to_sizes,
                              std::span<std::byte> from, std::span<const std::size_t> from_sizes,
                              const char* what) = 0;

 private:
  /// The first half of every exchange: gathers the sizes, failures and flags of all ranks.
  std::vector<std::size_t> begin(std::size_t bytes, const char* what);
  [[noreturn]] void learn_of_failures(const std::vector<std::size_t>& texts,
                                      const std::string& mine, const char* what);

  int rank_, size_, local_rank_, local_size_;
  bool failed_ = false;
  std::string failure_;
  std::uint32_t raised_ = 0, flags_ = 0;
};

/// Returns the ranks that mpirun or srun started with this process, or null where this process runs
/// alone. Where MPI is initialised already (mpi4py), the ranks are all processes of its world.
/// With KSHOT_RANKS=off in the environment the result is always null, so that each process works
/// for itself. Throws Error where a launcher started several processes and this build has no MPI,
/// or MPI does not see the other processes.
std::shared_ptr<Communicator> launched_ranks();

/// The MPI library of this build, "Open MPI v4.1.4"; empty without MPI.
std::string mpi_library();

}  // namespace kshot
