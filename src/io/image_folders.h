// Finding the classes of `import images` among the folders of a file tree.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/division.h"
#include "io/file_tree.h"

namespace kshot::io {

/// The folder of a class.
struct ClassFolder {
  std::string name;  ///< path below the folders that all have in common: "train/robin"
  std::string key;   ///< the same without the folder that names the split: "robin"
  std::optional<Split> split;
  std::vector<std::string> files;  ///< pictures, paths in the tree
};

struct ImageFolders {
  std::vector<ClassFolder> classes;  ///< in order of name
  /// How the folders divide the classes ("by the folders train (train), dev (validation)"); empty:
  /// they do not.
  std::string how;
  std::vector<std::string> notes;  ///< what was left out
};

/// Throws Error where there is no picture in a class folder, for a folder whose name is not UTF-8,
/// and, unless lists or fractions divide, where the folders look like a division and are not
/// clearly one: then the message lists what was found and the options that settle it.
ImageFolders find_image_folders(const FileTree& tree, const std::string& source,
                                const SplitOptions& options);

}  // namespace kshot::io
