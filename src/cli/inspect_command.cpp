// `inspect` and `devices`: print the content of files and the devices of this machine.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <system_error>
#include <vector>

#include "backend/backend.h"
#include "base/text.h"
#include "cli/commands.h"
#include "data/dataset.h"
#include "data/division.h"
#include "engine/checkpoint.h"
#include "io/npy.h"
#include "io/safetensors.h"
#include "kshot/communicator.h"
#include "kshot/error.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;

void print_tensors(const std::map<std::string, io::Tensor>& tensors, bool values) {
  std::size_t width = 4, shapes = 5;
  for (const auto& [name, tensor] : tensors) {
    width = std::max(width, name.size());
    shapes = std::max(shapes, io::shape_text(tensor.shape).size());
  }
  fmt::print("{:<{}}  {:<8}  {:<{}}  {:>11}  {:>11}  {:>11}  {:>11}\n", "name", width, "type",
             "shape", shapes, "mean", "std", "min", "max");
  for (const auto& [name, tensor] : tensors) {
    const std::vector<double> x = tensor.to_f64();
    const auto n = static_cast<double>(x.size());
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
    double squares = 0.0;
    for (const double v : x) squares += (v - mean) * (v - mean);
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const double nan = std::numeric_limits<double>::quiet_NaN();
    fmt::print("{:<{}}  {:<8}  {:<{}}  {:>11.4g}  {:>11.4g}  {:>11.4g}  {:>11.4g}\n", name, width,
               io::dtype_name(tensor.dtype), io::shape_text(tensor.shape), shapes, mean,
               std::sqrt(squares / n), x.empty() ? nan : *low, x.empty() ? nan : *high);
    if (values) {
      const auto shown = std::min<std::size_t>(x.size(), 8);
      fmt::print("  {:.6g}{}\n", fmt::join(x.begin(), x.begin() + static_cast<long>(shown), ", "),
                 shown < x.size() ? ", ..." : "");
    }
  }
}

void print_safetensors(const fs::path& file, bool values) {
  const io::SafeTensors content = io::read_safetensors(file);
  const auto format = content.metadata.find("format");
  if (format != content.metadata.end() && format->second == "kshot checkpoint") {
    const Checkpoint c = Checkpoint::read(file);
    fmt::print("{}: checkpoint of kshot\n", file.string());
    fmt::print("steps {}, {:.1f} s of training, {} tasks ({} diverged)\n", c.state.step,
               c.state.seconds, c.state.tasks, c.state.diverged);
    if (c.state.validated) {
      fmt::print("best validation: {} {:.6g} at step {}\n", c.state.best.metric, c.state.best.value,
                 c.state.best.step);
    }
    fmt::print("episodes: {}\n\n{}\n", c.source.description, c.config.to_toml());
  } else {
    fmt::print("{}: safetensors\n", file.string());
    for (const auto& [key, text] : content.metadata) fmt::print("{}: {}\n", key, text);
  }
  print_tensors(content.tensors, values);
}

/// Prints the classes or tasks of a split: all, one per line, or the first few names.
void print_groups(const data::DatasetHeader& h, const std::vector<std::uint32_t>& indices,
                  bool all) {
  std::vector<std::string> names;
  for (const std::uint32_t i : indices) {
    names.push_back(h.groups[i].name);
    if (all) fmt::print("  {}: {} rows\n", printable(names.back()), h.groups[i].rows);
  }
  if (!all) fmt::print("  {}\n", data::name_some(names, 5));
}

void print_picture_preparation(const data::Preprocessing& p) {
  if (p.kind != data::Preprocessing::Kind::image) return;
  const std::string fit = p.fit == data::ImageFit::exact ? "pictures of this size only"
                          : p.fit == data::ImageFit::squeeze
                              ? "resized, whatever the aspect ratio"
                              : "centre of the aspect ratio, resized";
  const std::string behind = p.background == io::Background::stored  ? "transparency dropped"
                             : p.background == io::Background::white ? "laid on white"
                                                                     : "laid on black";
  fmt::print("pictures: {}, {}, {}{}\n", p.input.channels == 1 ? "grey" : "RGB", fit, behind,
             p.inverted ? ", inverted (black is 1)" : "");
}

void print_dataset(const fs::path& file, bool classes) {
  const std::shared_ptr<const data::Dataset> data = data::Dataset::open(file);
  const data::DatasetHeader& h = data->header();
  fmt::print("{}: data file of kshot, {} bytes, checksum {:08x}\n", file.string(),
             data->file_bytes(), data->checksum());
  const FeatureShape& in = h.input;
  fmt::print("inputs {}, {}\n",
             in.spatial ? fmt::format("{} x {} x {}", in.channels, in.height, in.width)
                        : fmt::format("{}", in.size()),
             h.element == data::Element::u8 ? "bytes" : "float32");
  const char* groups = h.kind == data::GroupKind::classes ? "classes" : "tasks";
  if (h.kind == data::GroupKind::tasks) {
    fmt::print("targets: {} {}\n", h.outputs, h.target == TargetKind::label ? "labels" : "numbers");
  }
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    const std::vector<std::uint32_t> indices = h.split_groups(split);
    if (indices.empty()) continue;
    std::uint64_t rows = 0;
    std::uint32_t fewest = std::numeric_limits<std::uint32_t>::max(), most = 0;
    for (const std::uint32_t i : indices) {
      rows += h.groups[i].rows;
      fewest = std::min(fewest, h.groups[i].rows);
      most = std::max(most, h.groups[i].rows);
    }
    fmt::print("{:<10}  {} {}, {} rows ({} to {} each)\n", split_name(split), indices.size(),
               groups, rows, fewest, most);
    print_groups(h, indices, classes);
  }
  for (const auto& [key, text] : h.provenance) fmt::print("{}: {}\n", key, text);
  print_picture_preparation(h.preprocessing);
  for (const data::Preprocessing::Column& c : h.preprocessing.columns) {
    fmt::print("column {}: {}\n", c.name,
               !c.categories.empty() ? fmt::format("one-hot of {}", fmt::join(c.categories, ", "))
               : h.preprocessing.standardised
                   ? fmt::format("standardised, mean {:.6g}, deviation {:.6g}", c.mean, c.std)
                   : "numbers as they are");
  }
}

}  // namespace

int run_inspect(const std::string& name, bool values, bool classes) {
  fs::path file = name;
  std::error_code ignored;
  if (fs::is_directory(file, ignored)) file = find_checkpoint(file);
  if (!fs::exists(file, ignored)) throw Error(fmt::format("{}: no such file", file.string()));
  const std::string extension = lower_case(file.extension().string());
  if (extension == ".npz") {
    fmt::print("{}: npz\n", file.string());
    print_tensors(io::read_npz(file), values);
  } else if (extension == ".npy") {
    print_tensors({{file.filename().string(), io::read_npy(file)}}, values);
  } else if (extension == ".safetensors") {
    print_safetensors(file, values);
  } else if (extension == ".kshot") {
    print_dataset(file, classes);
  } else {
    throw Error(
        fmt::format("{}: expected a file named .safetensors, .kshot, .npz or .npy", file.string()));
  }
  return 0;
}

int run_devices() {
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    fmt::print("{:<10}  {}{}\n", device.name, device.description,
               device.usable ? "" : fmt::format(" (not usable: {})", device.reason));
  }
  const std::string mpi = mpi_library();
  fmt::print("{:<10}  {}\n", "ranks",
             mpi.empty() ? "one process (this build has no MPI)" : "mpirun or srun, " + mpi);
  return 0;
}

}  // namespace kshot::cli
