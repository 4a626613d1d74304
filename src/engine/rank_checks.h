// Checks of what the ranks of one run must agree on before they compute.
#pragma once

#include <exception>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "kshot/communicator.h"
#include "kshot/config.h"

namespace kshot {

/// True where this process writes files and messages: it is rank 0, or `ranks` is null.
inline bool is_rank_zero(const Communicator* ranks) {
  return ranks == nullptr || ranks->rank() == 0;
}
/// Returns rank 0's text on all ranks. `what` names the text in messages. `ranks` may be null.
std::string text_of_rank_zero(Communicator* ranks, const std::string& text, const char* what);

/// Something that must be the same on all ranks: "kshot's version", "0.2.0".
struct RankFact {
  std::string name, value;
};
/// Throws the same Error on every rank where a fact differs. The message names the first rank that
/// differs from rank 0, and the values of both ranks. `ranks` may be null.
void check_same(Communicator* ranks, const std::vector<RankFact>& facts);
/// Throws the same Error on every rank where the configurations differ. data.path may differ,
/// because the data file's checksum is a fact.
void check_same_config(Communicator* ranks, const Config& config);
/// The fact that decides the bits of a device, from the text that device_text (assembly.h) gives:
/// the device's kind, and on the CPU its instruction set.
RankFact device_fact(const std::string& text);
/// The facts of ranks that together work on a trained run: kshot's version, what they do, the
/// device (as in device_fact), and the checksum of the data file ("none": there is none).
std::vector<RankFact> work_facts(const std::string& work, const std::string& device,
                                 const std::string& checksum);
/// The precision, and the facts that decide the bits of a backend: its kind and instruction set.
std::vector<RankFact> backend_facts(const backend::Backend& backend);
/// Throws Error where vectors that every rank computes for itself differ between ranks, after step
/// `step`.
void check_replicas(Communicator* ranks, std::span<const backend::Shared> vectors,
                    std::uint64_t step);

/// Runs `act` and returns its result. If `act` throws, the other ranks are told, and the exception
/// goes on.
template <class Act>
auto run_and_report_failure(Communicator* ranks, const Act& act) {
  try {
    return act();
  } catch (const std::exception& error) {
    if (ranks != nullptr) ranks->fail(error.what());
    throw;
  }
}

/// The device for this rank. "cuda" becomes the GPU with the rank's number on its machine, or the
/// only GPU that the process sees.
std::string rank_device(const std::string& device, const Communicator* ranks);
/// The number of threads for this rank. Where `threads` is 0, it is the rank's share of the
/// machine's cores, unless the launcher has bound the process to some cores.
int rank_threads(int threads, const Communicator* ranks);

}  // namespace kshot
