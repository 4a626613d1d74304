#include "distributed/mpi.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>
#include <thread>

#include "base/failure_watch.h"
#include "kshot/error.h"

namespace kshot {
namespace {

using Clock = std::chrono::steady_clock;

/// Time limit of an exchange, unless KSHOT_RANK_TIMEOUT gives another one.
constexpr double usual_seconds = 300.0;
/// Time that the other ranks have to answer after a time limit has expired.
constexpr double roll_call_seconds = 2.0;
constexpr int roll_call_tag = 1;
constexpr int failure_tag = 2;
/// Size in bytes of the unit in which MPI counts. MPI's counts are int, so that exchanges in single
/// bytes would be limited to 2 GiB.
constexpr std::size_t unit = sizeof(std::uint64_t);

double time_limit_from_environment() {
  const char* const text = std::getenv("KSHOT_RANK_TIMEOUT");
  if (text == nullptr) return usual_seconds;
  double value = 0.0;
  const std::string_view view = text;
  const auto [end, fault] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (fault != std::errc() || end != view.data() + view.size() || !(value > 0.0)) {
    throw Error(
        fmt::format("KSHOT_RANK_TIMEOUT = \"{}\": expected a number of seconds above 0", text));
  }
  return value;
}

std::size_t units(std::size_t bytes) {
  return (bytes + unit - 1) / unit;
}

/// Waits for work that other ranks must do too. It first tries again at once and then sleeps for
/// short times, so that ranks that share a core let the others compute.
class Patience {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void wait() {
    const double waited = seconds();
    if (waited < 2e-3) return std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(waited < 0.1 ? 50 : 500));
  }

 private:
  Clock::time_point start_ = Clock::now();
};

/// Exchanges by MPI.
class MpiRanks final : public Communicator, public FailureWatch {
 public:
  MpiRanks(MPI_Comm world, int rank, int size, int local_rank, int local_size, bool finalize)
      : Communicator(rank, size, local_rank, local_size),
        world_(world),
        limit_(time_limit_from_environment()),
        finalize_(finalize) {}
  ~MpiRanks() override {
    if (!finalize_) return;
    // MPI requires that every message is received. The messages of a failure arrived before the
    // exchange that reported it.
    while (failure_announced()) {
      int from = 0;
      MPI_Recv(&from, 1, MPI_INT, MPI_ANY_SOURCE, failure_tag, world_, MPI_STATUS_IGNORE);
    }
    // Finalizing waits for all ranks. It is safe after a failure as well, because every rank knows
    // of it.
    MPI_Finalize();
  }
  double time_limit() const override { return limit_; }
  [[noreturn]] void give_up(const char* what) override { end(what); }
  bool failure_announced() override {
    int announced = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, failure_tag, world_, &announced, MPI_STATUS_IGNORE);
    return announced != 0;
  }
  void announce_failure() override {
    // The other ranks probe for these messages (failure_announced). The buffer must exist until
    // they are received.
    announced_ = rank();
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      MPI_Request request;
      MPI_Isend(&announced_, 1, MPI_INT, r, failure_tag, world_, &request);
      MPI_Request_free(&request);
    }
  }
  /// Takes over from a failed communicator of the same ranks: this one finalizes MPI.
  void replace(MpiRanks& failed) {
    finalize_ = failed.finalize_;
    failed.finalize_ = false;
  }
  std::string describe() const override {
    return fmt::format("{}, {} ranks", mpi_library(), size());
  }

 protected:
  void gather_equal(std::span<const std::byte> mine, std::span<std::byte> all,
                    const char* what) override {
    MPI_Request request;
    MPI_Iallgather(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all.data(),
                   static_cast<int>(mine.size()), MPI_BYTE, world_, &request);
    wait(request, what);
  }
  void gather_varied(std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                     std::span<std::byte> all, const char* what) override {
    const Layout to = layout(sizes);
    put(send_, mine, std::span(&to.counts[static_cast<std::size_t>(rank())], 1),
        std::span(&sizes[static_cast<std::size_t>(rank())], 1));
    receive_.resize(to.total);
    MPI_Request request;
    MPI_Iallgatherv(send_.data(), to.counts[static_cast<std::size_t>(rank())], MPI_UINT64_T,
                    receive_.data(), to.counts.data(), to.offsets.data(), MPI_UINT64_T, world_,
                    &request);
    wait(request, what);
    take(all, to, sizes);
  }
  void scatter_varied(std::span<const std::byte> to, std::span<const std::size_t> to_sizes,
                      std::span<std::byte> from, std::span<const std::size_t> from_sizes,
                      const char* what) override {
    const Layout out = layout(to_sizes), in = layout(from_sizes);
    put(send_, to, out.counts, to_sizes);
    receive_.resize(in.total);
    MPI_Request request;
    MPI_Ialltoallv(send_.data(), out.counts.data(), out.offsets.data(), MPI_UINT64_T,
                   receive_.data(), in.counts.data(), in.offsets.data(), MPI_UINT64_T, world_,
                   &request);
    wait(request, what);
    take(from, in, from_sizes);
  }

 private:
  /// Counts and offsets of the parts of an array, in units.
  struct Layout {
    std::vector<int> counts, offsets;
    std::size_t total = 0;
  };
  static Layout layout(std::span<const std::size_t> sizes) {
    Layout l;
    for (const std::size_t size : sizes) {
      if (l.total + units(size) > INT_MAX) throw Error("ranks: an exchange is larger than 16 GiB");
      l.counts.push_back(static_cast<int>(units(size)));
      l.offsets.push_back(static_cast<int>(l.total));
      l.total += units(size);
    }
    return l;
  }
  static void put(std::vector<std::uint64_t>& array, std::span<const std::byte> bytes,
                  std::span<const int> counts, std::span<const std::size_t> sizes) {
    std::size_t all = 0, offset = 0, from = 0;
    for (const int count : counts) all += static_cast<std::size_t>(count);
    array.assign(std::max<std::size_t>(all, 1), 0);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] > 0) std::memcpy(array.data() + offset, bytes.data() + from, sizes[i]);
      offset += static_cast<std::size_t>(counts[i]);
      from += sizes[i];
    }
  }
  void take(std::span<std::byte> bytes, const Layout& l, std::span<const std::size_t> sizes) const {
    std::size_t to = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const std::uint64_t* const from = receive_.data() + l.offsets[i];
      if (sizes[i] > 0) std::memcpy(bytes.data() + to, from, sizes[i]);
      to += sizes[i];
    }
  }

  void wait(MPI_Request& request, const char* what) {
    Patience patience;
    for (int tries = 1;; ++tries) {
      int done = 0;
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      if (done != 0) return;
      patience.wait();
      if (tries % 64 != 0) continue;
      int called = 0;  // another rank has reached its time limit
      MPI_Iprobe(MPI_ANY_SOURCE, roll_call_tag, world_, &called, MPI_STATUS_IGNORE);
      if (called != 0 || patience.seconds() > limit_) end(what);
    }
  }

  /// Ends all ranks after the time limit, with a message that names the ranks that do not answer.
  [[noreturn]] void end(const char* what) {
    const auto n = static_cast<std::size_t>(size());
    std::vector<MPI_Request> sent(n, MPI_REQUEST_NULL), received(n, MPI_REQUEST_NULL);
    std::vector<int> words(n);
    const int mine = rank();
    for (int r = 0; r < size(); ++r) {
      if (r == mine) continue;
      const auto i = static_cast<std::size_t>(r);
      MPI_Irecv(&words[i], 1, MPI_INT, r, roll_call_tag, world_, &received[i]);
      MPI_Isend(&mine, 1, MPI_INT, r, roll_call_tag, world_, &sent[i]);
    }
    std::vector<bool> here(n, false);
    here[static_cast<std::size_t>(mine)] = true;
    const auto missing = [&] { return std::ranges::count(here, false); };
    Patience patience;
    while (missing() > 0 && patience.seconds() < roll_call_seconds) {
      for (std::size_t r = 0; r < n; ++r) {
        int done = 0;
        if (!here[r]) MPI_Test(&received[r], &done, MPI_STATUS_IGNORE);
        if (done != 0) here[r] = true;
      }
      patience.wait();
    }
    if (std::ranges::find(here, true) - here.begin() == mine) {
      std::string ranks;
      for (std::size_t r = 0; r < n; ++r) {
        if (!here[r]) ranks += fmt::format("{}{}", ranks.empty() ? "" : ", ", r);
      }
      const std::string who = ranks.empty() ? std::string("all ranks wait in vain in")
                                            : "rank " + ranks + ": did not come to";
      std::fprintf(
          stderr,
          "kshot: %s an exchange (%s) within %g s (KSHOT_RANK_TIMEOUT): the process hangs, "
          "is gone, or is slow\n",
          who.c_str(), what, limit_);
      std::fflush(stderr);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));  // the message is printed first
    }
    MPI_Abort(world_, 2);
    std::_Exit(2);
  }

  MPI_Comm world_;
  double limit_;
  bool finalize_;
  /// The number of this rank, after it has failed.
  int announced_ = -1;
  std::vector<std::uint64_t> send_, receive_;
};

std::shared_ptr<MpiRanks> make_ranks(bool finalize) {
  // A duplicate communicator, so that messages of the program on MPI_COMM_WORLD do not interfere.
  MPI_Comm world, node;
  MPI_Comm_dup(MPI_COMM_WORLD, &world);
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
  MPI_Comm_rank(world, &rank);
  MPI_Comm_size(world, &size);
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &local_rank);
  MPI_Comm_size(node, &local_size);
  MPI_Comm_free(&node);
  if (size == 1) {
    MPI_Comm_free(&world);
    if (finalize) MPI_Finalize();
    return nullptr;
  }
  return std::make_shared<MpiRanks>(world, rank, size, local_rank, local_size, finalize);
}

}  // namespace

bool mpi_initialised() {
  int begun = 0, ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  return begun != 0 && ended == 0;
}

std::shared_ptr<Communicator> open_mpi() {
  static std::shared_ptr<MpiRanks> ranks = [] {
    if (mpi_initialised()) return make_ranks(false);
    int level = 0;
    // Exchanges come from one thread at a time: only the training thread makes them.
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level);
    return make_ranks(true);
  }();
  // A program (Python) may continue after an error that all ranks have received.
  if (ranks != nullptr && ranks->failed()) {
    const std::shared_ptr<MpiRanks> fresh = make_ranks(false);
    fresh->replace(*ranks);
    ranks = fresh;
  }
  return ranks;
}

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  // MPI's texts are "Open MPI v4.1.4, package: ..." and "MPICH Version:\t4.0.2\nMPICH Release
  // date: ...".
  std::string name(text, static_cast<std::size_t>(length));
  name = name.substr(0, name.find_first_of(",\n"));
  constexpr std::string_view label = " Version:";
  if (const auto at = name.find(label); at != std::string::npos) name.erase(at, label.size());
  std::string plain;
  for (const char c : name) {
    const bool blank = c == ' ' || c == '\t';
    if (blank && (plain.empty() || plain.back() == ' ')) continue;
    plain += blank ? ' ' : c;
  }
  return plain;
}

}  // namespace kshot
