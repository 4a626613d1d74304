// A file as it is given, for tests that write hundreds of damaged ones: AtomicFile would sync each.
#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace kshot::test {

inline void put_file(const std::filesystem::path& path, const std::string& contents) {
  // Some file systems sync a file that is cut to nothing and written anew, too.
  std::filesystem::remove(path);
  std::ofstream file(path, std::ios::binary);
  file << contents;
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

}  // namespace kshot::test
