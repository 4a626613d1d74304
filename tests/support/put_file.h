// Writes a file without syncing it, for tests that write hundreds of damaged files. AtomicFile
// would sync each of them.
#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace kshot::test {

inline void put_file(const std::filesystem::path& path, const std::string& contents) {
  // The old file is removed first, because some file systems also sync a file that is truncated and
  // written again.
  std::filesystem::remove(path);
  std::ofstream file(path, std::ios::binary);
  file << contents;
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

}  // namespace kshot::test
