// Data files of classes that are easy to tell apart, for tests of training and features.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "kshot/random.h"

namespace kshot::test {

struct ClassFile {
  FeatureShape input{1, 6, 6, true};
  /// Numbers of classes per split.
  int train = 8, validation = 3, test = 4;
  /// Rows per class.
  int rows = 20;
  double noise = 0.3;
};

/// Writes a file of vectors or images of floats. Each class is a random pattern, and each of its
/// examples is this pattern with noise.
inline void write_class_file(const std::filesystem::path& path, const ClassFile& options) {
  data::DatasetHeader header;
  header.kind = data::GroupKind::classes;
  header.input = options.input;
  header.element = data::Element::f32;
  header.preprocessing.input = options.input;
  data::DatasetWriter writer(path, header);
  RandomStream stream({7, Purpose::episode, 0, 0, 0, 0});
  const int classes = options.train + options.validation + options.test;
  for (int c = 0; c < classes; ++c) {
    writer.begin_group("class " + std::to_string(c), c < options.train ? Split::train
                                                     : c < options.train + options.validation
                                                         ? Split::validation
                                                         : Split::test);
    std::vector<float> pattern(static_cast<std::size_t>(options.input.size()));
    for (float& p : pattern) p = stream.normal();
    for (int r = 0; r < options.rows; ++r) {
      std::vector<float> x = pattern;
      for (float& v : x) v += static_cast<float>(options.noise) * stream.normal();
      writer.add(x);
    }
  }
  writer.commit();
}

/// Writes a file of classes of vectors of six numbers into a folder. Returns its path.
inline std::filesystem::path put_class_vectors(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "classes.kshot";
  write_class_file(file, {.input = {6, 1, 1, false}, .train = 9, .validation = 5, .test = 7});
  return file;
}

/// All examples of a file, [rows, inputs].
inline std::vector<float> all_rows(const data::Dataset& data) {
  const auto d = static_cast<std::size_t>(data.header().input.size());
  std::vector<float> x(data.header().rows() * d);
  for (std::uint64_t row = 0; row < data.header().rows(); ++row) {
    data.read(row, std::span(x).subspan(row * d, d));
  }
  return x;
}

}  // namespace kshot::test
