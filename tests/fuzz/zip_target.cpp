// Opens a zip archive as a tree of files.
#include "fuzz/target.h"
#include "io/file_tree.h"

KSHOT_FUZZ_TARGET(zip) {
  using namespace kshot;
  const auto file = fuzz::input("a.zip", bytes);
  std::unique_ptr<io::FileTree> tree;
  if (!fuzz::accepts("a.zip", [&] { tree = io::FileTree::open(file); })) return;
  for (const std::string& entry : tree->files()) {
    fuzz::accepts("a.zip", [&] { static_cast<void>(tree->read(entry)); });
  }
}
