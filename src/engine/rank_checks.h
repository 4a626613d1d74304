// What the ranks of one run must agree on before they compute.
#pragma once

#include <exception>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "kshot/communicator.h"
#include "kshot/config.h"

namespace kshot {

/// Whether this process writes files and messages: it is rank 0, or there are no ranks (null).
inline bool leads(const Communicator* ranks) {
  return ranks == nullptr || ranks->rank() == 0;
}
/// The text that rank 0 has, on all ranks; `what` it is, for messages. `ranks` may be null.
std::string text_of_first(Communicator* ranks, const std::string& text, const char* what);

/// Something that must be the same on all ranks: "kshot's version", "0.2.0".
struct RankFact {
  std::string name, value;
};
/// Throws the same Error on every rank where a fact differs; it names the first rank that differs
/// from rank 0, and what each has. `ranks` may be null.
void check_same(Communicator* ranks, const std::vector<RankFact>& facts);
/// The same for configurations; data.path may differ, because the data file's checksum is a fact.
void check_same_config(Communicator* ranks, const Config& config);
/// What decides the bits of a device that device_text (assembly.h) describes: its kind, and on the
/// CPU the instruction set.
RankFact device_fact(const std::string& text);
/// The facts of ranks that together work on a trained run: kshot's version, what they do, the
/// device (as in device_fact), and the checksum of the data file ("none": there is none).
std::vector<RankFact> work_facts(const std::string& work, const std::string& device,
                                 const std::string& checksum);
/// The precision, and what decides the bits of a backend: its kind and instruction set.
std::vector<RankFact> backend_facts(const backend::Backend& backend);
/// Throws where vectors that every rank computes for itself are not the same, after step `step`.
void check_replicas(Communicator* ranks, std::span<const backend::Shared> vectors,
                    std::uint64_t step);

/// Runs `act` and returns its result. What it throws is told to the other ranks, if there are any.
template <class Act>
auto telling(Communicator* ranks, const Act& act) {
  try {
    return act();
  } catch (const std::exception& error) {
    if (ranks != nullptr) ranks->fail(error.what());
    throw;
  }
}

/// The device for this rank: of "cuda" the GPU with the rank's number on its machine.
std::string rank_device(const std::string& device, const Communicator* ranks);
/// The threads for this rank where `threads` is 0: its share of the machine's cores, unless the
/// launcher has bound the process to some.
int rank_threads(int threads, const Communicator* ranks);

}  // namespace kshot
