#include "engine/rank_checks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/archive.h"
#include "config/facts.h"
#include "engine/assembly.h"
#include "kshot/error.h"
#include "kshot/version.h"

namespace kshot {

template <class Archive>
void fields(Archive& a, RankFact& f) {
  a(f.name, f.value);
}

std::string text_of_rank_zero(Communicator* ranks, const std::string& text, const char* what) {
  if (ranks == nullptr) return text;
  const Communicator::Bytes first =
      ranks->all_gather(std::as_bytes(std::span(text.data(), text.size())), what)[0];
  return {reinterpret_cast<const char*>(first.data()), first.size()};
}

void check_same(Communicator* ranks, const std::vector<RankFact>& facts) {
  if (ranks == nullptr) return;
  std::vector<RankFact> mine = facts;
  Pack pack;
  pack(mine);
  const std::vector<Communicator::Bytes> all = ranks->all_gather(pack.take(), "facts of the ranks");
  std::vector<RankFact> first;
  Unpack{all.front()}(first);
  for (std::size_t r = 1; r < all.size(); ++r) {
    std::vector<RankFact> other;
    Unpack{all[r]}(other);
    const std::size_t n = std::min(first.size(), other.size());
    for (std::size_t i = 0; i < n; ++i) {
      if (first[i].name == other[i].name && first[i].value == other[i].value) continue;
      throw Error(
          fmt::format("rank {}: {} is {}, but rank 0 has {}; expected the same on all ranks", r,
                      other[i].name, other[i].value, first[i].value));
    }
    if (first.size() != other.size()) {
      throw Error(fmt::format("rank {}: runs a different command than rank 0", r));
    }
  }
}

void check_same_config(Communicator* ranks, const Config& config) {
  if (ranks == nullptr) return;
  std::vector<RankFact> facts;
  const std::string text = config.to_toml();
  const std::vector<Communicator::Bytes> all = ranks->all_gather(
      std::as_bytes(std::span(text.data(), text.size())), "configurations of the ranks");
  const auto parsed = [&](std::size_t r) {
    return Config::parse(std::string(reinterpret_cast<const char*>(all[r].data()), all[r].size()),
                         fmt::format("configuration of rank {}", r));
  };
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    for (const ConfigDifference& d : differences(parsed(0), parsed(r))) {
      if (d.key == "data.path") continue;
      throw Error(
          fmt::format("rank {}: {} = {}, but rank 0 has {}; expected the same configuration "
                      "on all ranks",
                      r, d.key, d.second, d.first));
    }
  }
}

std::vector<RankFact> backend_facts(const backend::Backend& backend) {
  return {device_fact(device_text(backend)),
          {"the precision", backend.precision() == backend::Precision::f64 ? "f64" : "f32"}};
}

RankFact device_fact(const std::string& text) {
  const std::string kind = text.substr(0, text.find_first_of(":, "));
  // The cpu backend names its instruction set first: "cpu, AVX-512 (16 floats a vector), 2
  // threads".
  return {"the device", kind == "cpu" ? text.substr(0, text.rfind(", ")) : kind};
}

std::vector<RankFact> work_facts(const std::string& work, const std::string& device,
                                 const std::string& checksum) {
  return {{"the version of kshot", std::string(version())},
          {"the command", work},
          device_fact(device),
          {"the checksum of the data file", checksum}};
}

void check_replicas(Communicator* ranks, std::span<const backend::Shared> vectors,
                    std::uint64_t step) {
  if (ranks == nullptr) return;
  std::uint64_t sum = 0xcbf29ce484222325u;  // FNV-1a over words
  for (const backend::Shared& vector : vectors) {
    std::vector<double> values(vector->size());
    vector->download(values);
    for (const double value : values) {
      std::uint64_t word = 0;
      std::memcpy(&word, &value, sizeof word);
      sum = (sum ^ word) * 0x100000001b3u;
    }
  }
  const std::vector<Communicator::Bytes> all =
      ranks->all_gather(std::as_bytes(std::span(&sum, 1)), "checksums of the parameters");
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    throw Error(
        fmt::format("rank {}: its parameters differ from those of rank 0 after step {}, because "
                    "its machine rounds differently; "
                    "expected the same kind of machine for all ranks",
                    r, step));
  }
}

std::string rank_device(const std::string& device, const Communicator* ranks) {
  if (ranks == nullptr || device != "cuda") return device;
  // Slurm (--gpus-per-task, --gpu-bind) and launch scripts may let each rank see its own GPU alone.
  // CUDA gives the number 0 to the only GPU that a rank sees.
  const char* const variable = std::getenv("CUDA_VISIBLE_DEVICES");
  const std::string visible = variable != nullptr ? variable : "";
  const bool sees_one = !visible.empty() && visible.find(',') == std::string::npos;
  return fmt::format("cuda:{}", sees_one ? 0 : ranks->local_rank());
}

int rank_threads(int threads, const Communicator* ranks) {
  if (ranks == nullptr || threads != 0) return threads;
  const int usable = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const bool bound = usable < static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  return bound ? usable : std::max(1, usable / ranks->local_size());
}

}  // namespace kshot
