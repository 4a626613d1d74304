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

/// Exchanges between ranks. Every exchange tells all ranks when one of them has failed, and has a
/// time limit, so that no rank waits for one that is gone. Not thread-safe.
class Communicator {
 public:
  using Bytes = std::vector<std::byte>;  ///< what one rank sends or gets

  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }  ///< number of this rank
  int size() const { return size_; }  ///< number of ranks
  /// Number of this rank, and of ranks, among those on this machine.
  int local_rank() const { return local_rank_; }  ///< number of this rank
  int local_size() const { return local_size_; }  ///< number of ranks
  /// "Open MPI v4.1.4, 4 ranks".
  virtual std::string describe() const = 0;

  // Exchanges. `what` names one in messages ("the gradient"). All throw Error where a rank has
  // failed; the message is "rank N: " and what that rank said.
  /// The bytes of every rank, by rank.
  std::vector<Bytes> all_gather(std::span<const std::byte> mine, const char* what);
  std::vector<std::vector<double>> all_gather(std::span<const double> mine, const char* what);
  /// to[r] goes to rank r; the result has the bytes from each rank.
  std::vector<Bytes> all_to_all(const std::vector<Bytes>& to, const char* what);
  /// Returns once every rank has called it.
  void barrier(const char* what);

  /// Tells the other ranks that this one cannot go on: their next exchange throws. Does nothing
  /// after an exchange that has thrown, because every rank knows already.
  void fail(const std::string& message) noexcept;
  /// Whether an exchange has thrown, or this rank has failed. No exchange is possible any more.
  bool failed() const { return failed_; }
  /// What to print: the message of the first rank that failed. It begins with "rank N: ", unless
  /// all ranks failed with the same message.
  const std::string& failure() const { return failure_; }

  /// Seconds that an exchange may take.
  virtual double time_limit() const { return 300.0; }
  /// For waiting outside of an exchange (NCCL): a rank has not come within the time limit. Says
  /// which, and ends the program. Throws Error where the ranks cannot be ended.
  [[noreturn]] virtual void give_up(const char* what);

  /// Flags that go to all ranks with the next exchange.
  void raise(std::uint32_t flags) { raised_ |= flags; }
  /// The flags that any rank has sent with an exchange so far. All ranks see the same between the
  /// same two exchanges.
  std::uint32_t flags() const { return flags_; }
  void clear_flags() { flags_ = 0; }  ///< forgets the flags that were sent so far

 protected:
  Communicator(int rank, int size, int local_rank, int local_size)
      : rank_(rank), size_(size), local_rank_(local_rank), local_size_(local_size) {}  ///< numbers

  // The transport. Each returns when this rank's part is done, and not where a rank comes too late.
  /// Every rank sends the same number of bytes. `all` gets the bytes of all, one after another.
  virtual void gather_equal(std::span<const std::byte> mine, std::span<std::byte> all,
                            const char* what) = 0;
  /// Rank r sends sizes[r] bytes. `all` gets the bytes of all ranks, one after another.
  virtual void gather_varied(std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                             std::span<std::byte> all, const char* what) = 0;
  virtual void scatter_varied(std::span<const std::byte> to, std::span<const std::size_t> to_sizes,
                              std::span<std::byte> from, std::span<const std::size_t> from_sizes,
                              const char* what) = 0;  ///< to_sizes[r] bytes go to rank r

 private:
  /// The first half of every exchange: sizes, failures and flags of all ranks.
  std::vector<std::size_t> begin(std::size_t bytes, const char* what);
  [[noreturn]] void learn_of_failures(const std::vector<std::size_t>& texts,
                                      const std::string& mine, const char* what);

  int rank_, size_, local_rank_, local_size_;
  bool failed_ = false;
  std::string failure_;
  std::uint32_t raised_ = 0, flags_ = 0;
};

/// The ranks that mpirun or srun started with this process. Null where it runs alone. Where
/// MPI is initialised already (mpi4py), all processes of its world. Throws Error where a launcher
/// started several processes and this build has no MPI, or MPI does not see the others. With
/// KSHOT_RANKS=off in the environment always null, so that each process works for itself.
std::shared_ptr<Communicator> launched_ranks();

/// The MPI library of this build: "Open MPI v4.1.4"; empty for none.
std::string mpi_library();

}  // namespace kshot
