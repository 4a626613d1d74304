#include "engine/run_folder.h"

#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "io/atomic_file.h"
#include "io/json_text.h"
#include "io/system_error.h"
#include "kshot/error.h"
#include "kshot/version.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// ISO 8601, UTC.
std::string now_text() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

void create_run_folder(const fs::path& folder) {
  std::error_code error;
  for (const char* name : {last_checkpoint, best_checkpoint, config_file, metrics_file}) {
    if (fs::exists(folder / name, error)) {
      throw Error(
          fmt::format("run folder {} already holds a run ({}): resume it, or choose another folder",
                      folder.string(), name));
    }
  }
  fs::create_directories(folder, error);
  if (error) {
    throw Error(fmt::format("cannot create run folder {}: {}", folder.string(), error.message()));
  }
  if (!fs::is_directory(folder, error)) {
    throw Error(fmt::format("cannot create run folder {}: it is a file", folder.string()));
  }
  clean_run_folder(folder);
}

void clean_run_folder(const fs::path& folder) {
  for (const char* name :
       {last_checkpoint, best_checkpoint, config_file, metrics_file, run_file, memory_file}) {
    io::remove_leftovers(folder / name);
  }
}

void write_run_record(const fs::path& folder, const Assembly& assembly, const SourceInfo& source,
                      const std::string& command, const std::uint64_t* resumed_at) {
  using nlohmann::ordered_json;
  const ordered_json session = {
      {"start", now_text()},
      {"kshot", version()},
      {"compiler", __VERSION__},
      {"command", command},
      {"device", device_text(*assembly.backend)},
      {"threads", assembly.backend->concurrency()},
      {"processor", processor()},
      {"processor_threads", std::thread::hardware_concurrency()},
      {"from_step", resumed_at ? *resumed_at : 0},
  };
  ordered_json record;
  if (resumed_at) {
    try {
      record = io::parse_json<ordered_json>(io::read_file(folder / run_file));
    } catch (const nlohmann::json::exception&) {  // not needed to go on: begin a new list
    } catch (const Error&) {
    }
  }
  if (!record.is_object() || !record.contains("sessions") || !record["sessions"].is_array()) {
    std::size_t parameters = 0;
    for (const ParameterGroup& group : assembly.algorithm->groups()) parameters += group.size;
    record = {{"algorithm", assembly.algorithm->name()},
              {"seed", assembly.config.seed},
              {"network_weights", assembly.network->size()},
              {"meta_parameters", parameters},
              {"episodes", source.description},
              {"sessions", ordered_json::array()}};
  }
  record["sessions"].push_back(session);
  io::write_file_atomic(folder / run_file, record.dump(2) + "\n");
}

}  // namespace kshot
