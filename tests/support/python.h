// Python programs that tests write and run. KSHOT_TEST_PYTHON names the interpreter (default:
// python3). A test whose package is missing there is skipped (KSHOT_NEEDS).
#pragma once

#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>

#include <nlohmann/json.hpp>
#include <string>

#include "io/atomic_file.h"
#include "support/temp_folder.h"

namespace kshot::test {

inline std::string python() {
  const char* name = ::getenv("KSHOT_TEST_PYTHON");
  return name != nullptr && *name != '\0' ? name : "python3";
}

inline std::string quoted(const std::string& text) {
  return "'" + text + "'";
}

inline bool can_import(const std::string& module) {
  const std::string command =
      quoted(python()) + " -c " + quoted("import " + module) + " >/dev/null 2>&1";
  return ::system(command.c_str()) == 0;
}

/// Runs a script in a folder and parses its output as JSON.
inline nlohmann::json run_python(const TempFolder& folder, const std::string& script) {
  io::write_file_atomic(folder / "script.py", script);
  const std::string command =
      "cd " + quoted(folder.path().string()) + " && " + quoted(python()) + " script.py 2>stderr";
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string output;
  char buffer[4096];
  for (std::size_t got = 0; (got = ::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    output.append(buffer, got);
  }
  EXPECT_EQ(::pclose(pipe), 0) << io::read_file(folder / "stderr");
  return nlohmann::json::parse(output, nullptr, false);
}

}  // namespace kshot::test

#define KSHOT_NEEDS(module)                                                \
  if (!::kshot::test::can_import(module)) {                                \
    GTEST_SKIP() << ::kshot::test::python() << " cannot import " << module \
                 << ": set KSHOT_TEST_PYTHON to one that can";             \
  }
