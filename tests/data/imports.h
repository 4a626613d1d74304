// A fixture that the tests of imports share.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/import.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::test {

inline std::vector<float> row(const data::Dataset& data, std::uint64_t at) {
  std::vector<float> out(static_cast<std::size_t>(data.header().input.size()));
  data.read(at, out);
  return out;
}

/// Runs one kind of import on files in `folder_`.
template <class Options, data::ImportSummary (*run)(const Options&)>
class Imports : public ::testing::Test {
 protected:
  Imports() { options_.output = folder_ / "out.kshot"; }
  std::shared_ptr<const data::Dataset> import() {
    summary_ = run(options_);
    return data::Dataset::open(options_.output);
  }
  /// The message of an import that must fail. A failed import must leave no output file.
  std::string fault() {
    std::filesystem::remove(options_.output);
    const std::string message = error_text([&] { run(options_); });
    EXPECT_FALSE(std::filesystem::exists(options_.output));
    return message;
  }

  TempFolder folder_;
  Options options_;
  data::ImportSummary summary_;
};

}  // namespace kshot::test
