// Finds the classes of `import images` among the folders of a file tree.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/division.h"
#include "io/file_tree.h"

namespace kshot::data {

/// The folder of a class.
struct ClassFolder {
  std::string name;  ///< path below the common folders of all classes: "train/robin"
  std::string key;   ///< `name` without the folder that names the split: "robin"
  std::optional<Split> split;
  std::vector<std::string> files;  ///< pictures, as paths in the tree
};

struct ImageFolders {
  std::vector<ClassFolder> classes;  ///< sorted by name
  /// How the folders divide the classes ("by the folders train (train), dev (validation)"). Empty
  /// if they do not divide them.
  std::string how;
  std::vector<std::string> notes;  ///< notes on entries that were left out
};

/// Throws Error where no class folder has a picture, and for a folder whose name is not UTF-8.
/// Unless lists or fractions divide, it also throws where the folders look like a division but are
/// not clearly one: the message lists the folders and the options that settle the question.
ImageFolders find_image_folders(const io::FileTree& tree, const std::string& source,
                                const SplitOptions& options);

}  // namespace kshot::data
