#include "engine/data_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "base/log.h"
#include "kshot/error.h"

namespace kshot {

namespace fs = std::filesystem;

DataFile describe_data(const data::Dataset& data) {
  const data::DatasetHeader& header = data.header();
  const auto count = [&](Split split) { return header.split_groups(split).size(); };
  std::error_code ignored;
  const fs::path absolute = fs::absolute(data.path(), ignored);
  return {.path = (absolute.empty() ? data.path() : absolute.lexically_normal()).string(),
          .checksum = fmt::format("crc32:{:08x}", data.checksum()),
          .split = fmt::format("{} train, {} validation, {} test {}", count(Split::train),
                               count(Split::validation), count(Split::test),
                               header.kind == data::GroupKind::classes ? "classes" : "tasks")};
}

Config locate_data(Config config, const Checkpoint& checkpoint) {
  std::error_code ignored;
  const std::string& path = config.data.path;
  if (config.data.source != DataKind::file || path.empty() || fs::exists(path, ignored)) {
    return config;
  }
  const std::optional<DataFile>& trained = checkpoint.source.data;
  const bool own = path == checkpoint.config.data.path;
  if (own && trained && fs::exists(trained->path, ignored)) {
    log_info(fmt::format("data file {}, as in training ({} is not in {})", trained->path, path,
                         fs::current_path(ignored).string()));
    config.data.path = trained->path;
    return config;
  }
  std::string tried = path;
  if (fs::path(path).is_relative()) {
    tried += fmt::format(" in {}", fs::current_path(ignored).string());
  }
  if (own && trained && trained->path != path) tried += fmt::format(", {}", trained->path);
  throw Error(
      fmt::format("{}: its data file was not found (tried {}); expected --set data.path=FILE",
                  checkpoint.path.string(), tried));
}

bool check_same_data(const Checkpoint& checkpoint, const data::Dataset& now, bool allowed) {
  const std::optional<DataFile>& trained = checkpoint.source.data;
  if (!trained) {
    log_warning(
        fmt::format("{} holds no checksum of its data file (written by kshot 0.1.0): {} may be a "
                    "different file",
                    checkpoint.path.string(), now.path().string()));
    return false;
  }
  const DataFile file = describe_data(now);
  if (file.checksum == trained->checksum) return false;
  const std::string what = fmt::format(
      "{}: {} ({}, {}) is not the data file of the training ({}, {}), so that classes or tasks of "
      "the "
      "training may be among those that are tested",
      checkpoint.path.string(), now.path().string(), file.checksum, file.split, trained->checksum,
      trained->split);
  if (!allowed) {
    throw Error(what + "; --allow-changed-data of train, evaluate, report and embed accepts it");
  }
  log_warning(what);
  return true;
}

}  // namespace kshot
