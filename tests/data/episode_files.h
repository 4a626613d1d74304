// Data files from which the tests of episodes draw. The numbers of every row tell its position in
// the file.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace kshot::test {

/// A file with 12 training, 6 validation and 5 test classes. Feature 0 of a row is its class, and
/// feature 1 is its number in the class.
inline std::shared_ptr<const data::Dataset> class_file(const std::filesystem::path& path,
                                                       int rows = 20) {
  data::DatasetHeader header;
  header.kind = data::GroupKind::classes;
  header.input = {.channels = 2};
  header.preprocessing.kind = data::Preprocessing::Kind::table;
  data::DatasetWriter writer(path, header);
  for (int c = 0; c < 23; ++c) {
    writer.begin_group("class " + std::to_string(c), c < 12   ? Split::train
                                                     : c < 18 ? Split::validation
                                                              : Split::test);
    for (int r = 0; r < rows + c % 3; ++r) {
      writer.add(std::vector<float>{static_cast<float>(c), static_cast<float>(r)});
    }
  }
  writer.commit();
  return data::Dataset::open(path);
}

/// A file with training tasks of 30, 12 and 4 rows and a validation task of 9 rows. Row r of task t
/// has x = (t, r) and y = 100 t + r.
inline std::shared_ptr<const data::Dataset> task_file(const std::filesystem::path& path,
                                                      bool labels = false) {
  data::DatasetHeader header;
  header.kind = data::GroupKind::tasks;
  header.input = {.channels = 2};
  header.target = labels ? TargetKind::label : TargetKind::value;
  header.outputs = labels ? 3 : 1;
  data::DatasetWriter writer(path, header);
  const std::vector<int> sizes = {30, 12, 4, 9};
  for (int t = 0; t < 4; ++t) {
    writer.begin_group("t" + std::to_string(t), t < 3 ? Split::train : Split::validation);
    for (int r = 0; r < sizes[static_cast<std::size_t>(t)]; ++r) {
      writer.add(std::vector<float>{static_cast<float>(t), static_cast<float>(r)});
      if (labels) {
        writer.add_label(r % 3);
      } else {
        writer.add_value(std::vector<float>{static_cast<float>(100 * t + r)});
      }
    }
  }
  writer.commit();
  return data::Dataset::open(path);
}

}  // namespace kshot::test
