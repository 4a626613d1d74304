#include "engine/checkpoint.h"

#include <fmt/format.h>
#include <algorithm>

#include <cmath>
#include <nlohmann/json.hpp>
#include <system_error>

#include "io/json_text.h"
#include "io/safetensors.h"
#include "kshot/error.h"
#include "kshot/version.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* format_name = "kshot checkpoint";
constexpr int format_version = 1;

json to_json(const ValidationReport& v) {
  return {{"step", v.step},      {"metric", v.metric},
          {"value", v.value},    {"half_width", v.half_width},
          {"nll", v.nll},        {"diverged", v.diverged},
          {"seconds", v.seconds}};
}

/// NaN is written as null, because JSON has no NaN.
ValidationReport validation_from(const json& j) {
  ValidationReport v;
  v.step = io::whole_number<std::uint64_t>(j.at("step"));
  v.metric = j.at("metric").get<std::string>();
  v.value = io::number_or_nan(j.at("value"));
  v.half_width = io::number_or_nan(j.at("half_width"));
  v.nll = io::number_or_nan(j.at("nll"));
  v.diverged = io::whole_number<std::uint64_t>(j.at("diverged"));
  v.seconds = io::number_or_nan(j.at("seconds"));
  v.best = true;
  return v;
}

std::string state_text(const RunState& s) {
  json j = {{"step", s.step},
            {"seconds", s.seconds},
            {"tasks", s.tasks},
            {"diverged", s.diverged},
            {"guarded", s.guarded},
            {"validations_since_best", s.validations_since_best},
            {"window",
             {{"steps", s.window.steps},
              {"tasks", s.window.tasks},
              {"diverged", s.window.diverged},
              {"loss", s.window.loss},
              {"task_loss", s.window.task_loss}}}};
  if (s.validated) j["best"] = to_json(s.best);
  if (!s.run_id.empty()) j["run_id"] = s.run_id;
  if (s.store_ranks > 1) j["store_ranks"] = s.store_ranks;
  return j.dump();
}

RunState state_from(const json& j) {
  RunState s;
  s.step = io::whole_number<std::uint64_t>(j.at("step"));
  s.seconds = io::number_or_nan(j.at("seconds"));
  s.tasks = io::whole_number<std::uint64_t>(j.at("tasks"));
  s.diverged = io::whole_number<std::uint64_t>(j.at("diverged"));
  if (j.contains("guarded")) s.guarded = io::whole_number<std::uint64_t>(j.at("guarded"));
  s.validations_since_best = io::whole_number<int>(j.at("validations_since_best"));
  const json& w = j.at("window");
  s.window = {.steps = io::whole_number<std::uint64_t>(w.at("steps")),
              .tasks = io::whole_number<std::uint64_t>(w.at("tasks")),
              .diverged = io::whole_number<std::uint64_t>(w.at("diverged")),
              .loss = io::number_or_nan(w.at("loss")),
              .task_loss = io::number_or_nan(w.at("task_loss"))};
  if (j.contains("run_id")) s.run_id = j.at("run_id").get<std::string>();
  if (j.contains("store_ranks")) {
    s.store_ranks = std::clamp(io::whole_number<int>(j.at("store_ranks")), 1, 1 << 20);
  }
  if (j.contains("best")) {
    s.validated = true;
    s.best = validation_from(j.at("best"));
  }
  return s;
}

std::string source_text(const SourceInfo& source) {
  const TaskShape& shape = source.shape;
  json j{{"description", source.description},
         {"input", {shape.input.channels, shape.input.height, shape.input.width}},
         {"spatial", shape.input.spatial},
         {"outputs", shape.outputs},
         {"target", shape.target == TargetKind::label ? "label" : "value"},
         {"support", shape.support},
         {"query", shape.query}};
  if (source.data) {
    j["data"] = {{"path", source.data->path},
                 {"checksum", source.data->checksum},
                 {"split", source.data->split}};
  }
  // A path need not be UTF-8 text.
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

SourceInfo source_from(const json& j) {
  SourceInfo source;
  source.description = j.at("description").get<std::string>();
  const json& input = j.at("input");
  source.shape.input = {io::whole_number<int>(input.at(0)), io::whole_number<int>(input.at(1)),
                        io::whole_number<int>(input.at(2)), j.at("spatial").get<bool>()};
  source.shape.outputs = io::whole_number<int>(j.at("outputs"));
  source.shape.target = j.at("target") == "label" ? TargetKind::label : TargetKind::value;
  source.shape.support = io::whole_number<int>(j.at("support"));
  source.shape.query = io::whole_number<int>(j.at("query"));
  if (j.contains("data")) {
    const json& data = j.at("data");
    source.data =
        DataFile{data.at("path").get<std::string>(), data.at("checksum").get<std::string>(),
                 data.at("split").get<std::string>()};
  }
  return source;
}

std::vector<std::size_t> tensor_shape(const ParameterTensor& tensor) {
  return {tensor.shape.begin(), tensor.shape.end()};
}

}  // namespace

bool is_memory_file(std::string_view name) {
  if (name == memory_file) return true;
  const std::string_view begin = "tasks-", middle = "-of-", end = ".store";
  if (!name.starts_with(begin) || !name.ends_with(end)) return false;
  name.remove_prefix(begin.size());
  name.remove_suffix(end.size());
  const std::size_t at = name.find(middle);
  const auto digits = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  };
  return at != std::string_view::npos && digits(name.substr(0, at)) &&
         digits(name.substr(at + middle.size()));
}

Checkpoint Checkpoint::read(const fs::path& path) {
  io::SafeTensors file = io::read_safetensors(path);
  const auto entry = [&](const char* key) -> const std::string& {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end()) {
      throw Error(fmt::format("{}: not a checkpoint of kshot: \"{}\" is missing from its metadata",
                              path.string(), key));
    }
    return found->second;
  };
  if (entry("format") != format_name) {
    throw Error(fmt::format("{}: not a checkpoint of kshot: format is \"{}\", expected \"{}\"",
                            path.string(), entry("format"), format_name));
  }
  if (entry("version") != std::to_string(format_version)) {
    throw Error(
        fmt::format("{}: checkpoint of format version {}, expected {} (written by kshot {})",
                    path.string(), entry("version"), format_version, entry("kshot")));
  }
  Checkpoint checkpoint;
  checkpoint.path = path;
  checkpoint.config = Config::parse(entry("config"), path.string());
  try {
    checkpoint.state = state_from(io::parse_json(entry("state")));
    checkpoint.source = source_from(io::parse_json(entry("source")));
  } catch (const json::exception& error) {
    throw Error(fmt::format("{}: the metadata of the checkpoint are damaged: {}", path.string(),
                            error.what()));
  }
  if (file.metadata.contains("preprocessing")) {
    checkpoint.source.preprocessing = file.metadata.at("preprocessing");
  }
  checkpoint.tensors = std::move(file.tensors);
  return checkpoint;
}

void Checkpoint::write(const fs::path& file) const {
  io::SafeTensors content;
  content.tensors = tensors;
  content.metadata = {{"format", format_name},      {"version", std::to_string(format_version)},
                      {"kshot", version()},         {"config", config.to_toml()},
                      {"state", state_text(state)}, {"source", source_text(source)}};
  if (!source.preprocessing.empty()) content.metadata["preprocessing"] = source.preprocessing;
  io::write_safetensors(file, content);
}

void Checkpoint::store(const std::string& prefix, const ParameterGroup& group,
                       const backend::SharedVector& values, backend::Precision precision) {
  std::vector<double> flat(group.size);
  values.download(flat);
  store(prefix, group, flat, precision);
}

void Checkpoint::store(const std::string& prefix, const ParameterGroup& group,
                       const std::vector<double>& flat, backend::Precision precision) {
  const std::vector<float> single(flat.begin(), flat.end());
  for (const ParameterTensor& tensor : group.tensors) {
    const std::string name = prefix + full_name(group, tensor);
    tensors[name] =
        precision == backend::Precision::f64
            ? io::Tensor::from(std::span<const double>(flat).subspan(tensor.offset, tensor.size),
                               tensor_shape(tensor))
            : io::Tensor::from(std::span<const float>(single).subspan(tensor.offset, tensor.size),
                               tensor_shape(tensor));
  }
}

void Checkpoint::load(const std::string& prefix, const ParameterGroup& group,
                      backend::SharedVector& values) const {
  std::vector<double> flat(group.size);
  for (const ParameterTensor& tensor : group.tensors) {
    const std::string name = prefix + full_name(group, tensor);
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      throw Error(fmt::format("checkpoint {} is of another network or algorithm: it has no \"{}\"",
                              path.string(), name));
    }
    if (found->second.shape != tensor_shape(tensor)) {
      throw Error(fmt::format(
          "checkpoint {} is of another network: \"{}\" has shape {}, expected {}", path.string(),
          name, io::shape_text(found->second.shape), io::shape_text(tensor_shape(tensor))));
    }
    const std::vector<double> part = found->second.to_f64();
    for (std::size_t i = 0; i < part.size(); ++i) {
      if (!std::isfinite(part[i])) {
        throw Error(fmt::format("checkpoint {}: \"{}\" holds a number that is not finite",
                                path.string(), name));
      }
      flat[tensor.offset + i] = part[i];
    }
  }
  values.upload(flat);
}

fs::path find_checkpoint(const fs::path& run, const std::string& which) {
  std::error_code ignored;
  if (!fs::exists(run, ignored)) {
    throw Error(fmt::format("{}: no such run folder or checkpoint", run.string()));
  }
  if (!fs::is_directory(run, ignored)) return run;
  if (which == "best" && fs::exists(run / best_checkpoint, ignored)) return run / best_checkpoint;
  if (fs::exists(run / last_checkpoint, ignored)) return run / last_checkpoint;
  throw Error(
      fmt::format("{}: no checkpoint in this folder (expected {})", run.string(), last_checkpoint));
}

}  // namespace kshot
