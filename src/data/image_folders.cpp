#include "data/image_folders.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "io/image.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

constexpr const char* settle =
    "expected --by-folders (the first folder above a class that names a split decides, and classes "
    "without such a folder are left out), --fractions A,B,C (at random) or --split lists";

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    out.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

std::string joined(const std::vector<std::string>& parts, std::size_t begin, std::size_t end) {
  std::string out;
  for (std::size_t i = begin; i < end; ++i) out += (i > begin ? "/" : "") + parts[i];
  return out;
}

/// A folder that contains pictures.
struct Folder {
  std::vector<std::string> parts;
  std::vector<std::string> files;
  std::optional<std::size_t> level;  ///< index of the part that names a split; never the last part
};

/// The contents of a tree, sorted by kind.
struct Found {
  std::vector<Folder> folders;
  std::vector<std::string> loose;  ///< pictures above all class folders
  std::vector<std::string> other;  ///< files that are no pictures
};

Found sort_files(const io::FileTree& tree) {
  Found out;
  std::map<std::string, std::vector<std::string>> folders;
  for (const std::string& file : tree.files()) {
    const auto slash = file.rfind('/');
    if (!io::is_image_name(file)) {
      out.other.push_back(file);
    } else if (slash == std::string::npos) {
      out.loose.push_back(file);
    } else {
      folders[file.substr(0, slash)].push_back(file);
    }
  }
  for (auto& [path, files] : folders) {
    out.folders.push_back({parts_of(path), std::move(files), {}});
  }
  return out;
}

/// Removes the leading folders that all class folders have in common. A folder that names a split
/// stays.
void cut_common(Found* found) {
  auto& folders = found->folders;
  while (!folders.empty()) {
    const std::string first = folders.front().parts.front();
    const bool shared = std::ranges::all_of(
        folders, [&](const Folder& folder) { return folder.parts.front() == first; });
    const bool deeper =
        std::ranges::any_of(folders, [](const Folder& folder) { return folder.parts.size() > 1; });
    if (!shared || !deeper || split_from_folder(first)) return;
    std::erase_if(folders, [&](Folder& folder) {
      folder.parts.erase(folder.parts.begin());
      if (!folder.parts.empty()) return false;
      found->loose.insert(found->loose.end(), folder.files.begin(), folder.files.end());
      return true;
    });
  }
}

/// The folder under which messages count a class: the path down to the folder that names the split.
std::string head_of(const Folder& folder) {
  return joined(folder.parts, 0, folder.level ? *folder.level + 1 : 1);
}

/// Lists the folders for a message: "train/ (train, 64 classes), docs/ (no split, 1 class)".
std::string overview(const std::vector<Folder>& folders) {
  std::map<std::string, std::pair<std::string, std::size_t>> heads;
  for (const Folder& folder : folders) {
    const std::string head = head_of(folder);
    auto& [split, count] = heads[head];
    split = folder.level ? split_name(*split_from_folder(folder.parts[*folder.level])) : "no split";
    ++count;
  }
  std::vector<std::string> out;
  for (const auto& [head, what] : heads) {
    out.push_back(fmt::format("{}/ ({}, {} {})", head, what.first, what.second,
                              what.second == 1 ? "class" : "classes"));
  }
  return name_some(out, 12);
}

/// Removes folders that name a split and contain pictures beside class folders: these pictures are
/// in no class.
void move_strays(Found* found) {
  std::set<std::string> heads;
  for (const Folder& folder : found->folders) {
    if (folder.level) heads.insert(head_of(folder));
  }
  std::erase_if(found->folders, [&](const Folder& folder) {
    if (folder.level || !heads.contains(joined(folder.parts, 0, folder.parts.size()))) return false;
    found->loose.insert(found->loose.end(), folder.files.begin(), folder.files.end());
    return true;
  });
}

/// Throws Error where no folder clearly names a split, but some folders look as if they should.
void refuse_hidden_division(const std::vector<Folder>& folders, const std::string& source) {
  std::set<Split> leaves;
  std::vector<std::string> inner;
  for (const Folder& folder : folders) {
    if (const auto split = split_from_folder(folder.parts.back())) leaves.insert(*split);
    for (std::size_t i = 0; i + 1 < folder.parts.size(); ++i) {
      if (mentions_split(folder.parts[i]) &&
          std::ranges::find(inner, folder.parts[i]) == inner.end()) {
        inner.push_back(folder.parts[i]);
      }
    }
  }
  if (leaves.size() > 1) {
    throw Error(
        fmt::format("{}: folders with names of splits hold pictures instead of a folder for every "
                    "class: {}; expected train/CLASS/*.png, or "
                    "--fractions A,B,C (each of these folders is a class)",
                    source, overview(folders)));
  }
  if (!inner.empty()) {
    throw Error(
        fmt::format("{}: the names of some folders mention a split, but it is not clear which one: "
                    "{}; expected "
                    "train, val and test above the class folders, --fractions A,B,C (at "
                    "random) or --split lists",
                    source, name_some(inner)));
  }
}

/// Describes how the folders divide the classes. Returns an empty string where they do not. Throws
/// Error where the division is not clear.
std::string division_by_folders(Found* found, const std::string& source,
                                const SplitOptions& options) {
  std::vector<Folder>& folders = found->folders;
  std::map<Split, std::set<std::string>> heads;
  bool top = true;
  for (const Folder& folder : folders) {
    top = top && folder.level == 0;
    if (folder.level)
      heads[*split_from_folder(folder.parts[*folder.level])].insert(head_of(folder));
  }
  if (heads.empty()) {
    if (options.by_folders) {
      throw Error(
          fmt::format("{}: --by-folders: no folder above the class folders names a split; "
                      "found {}; expected train, val, test",
                      source, overview(folders)));
    }
    refuse_hidden_division(folders, source);
    return {};
  }
  const bool single =
      std::ranges::all_of(heads, [](const auto& entry) { return entry.second.size() == 1; });
  if (!options.by_folders && (!top || !single)) {
    throw Error(
        fmt::format("{}: it is not clear how the folders divide the classes into splits: {}; {}",
                    source, overview(folders), settle));
  }
  std::string how = "by the folders ";
  for (const auto& [split, names] : heads) {
    for (const std::string& name : names) {
      how += fmt::format("{}{} ({})", how.ends_with(' ') ? "" : ", ", printable(name),
                         split_name(split));
    }
  }
  return how;
}

std::string quantity(std::size_t count, const char* one, const char* many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

void note_left_out(const io::FileTree& tree, const Found& found, std::vector<std::string>* notes) {
  if (!found.other.empty()) {
    notes->push_back(
        fmt::format("left out: {} ({})",
                    quantity(found.other.size(), "file that is not a PNG or JPEG image",
                             "files that are not PNG or JPEG images"),
                    name_some(found.other)));
  }
  if (!found.loose.empty()) {
    notes->push_back(fmt::format("left out: {} outside of the class folders ({})",
                                 quantity(found.loose.size(), "picture", "pictures"),
                                 name_some(found.loose)));
  }
  for (const std::string& what : tree.left_out()) notes->push_back("left out: " + printable(what));
}

}  // namespace

ImageFolders find_image_folders(const io::FileTree& tree, const std::string& source,
                                const SplitOptions& options) {
  Found found = sort_files(tree);
  cut_common(&found);
  for (Folder& folder : found.folders) {
    const std::string path = joined(folder.parts, 0, folder.parts.size());
    if (!is_utf8(path)) {
      throw Error(fmt::format("{}: the name of the class folder '{}' is not UTF-8 text; rename it",
                              source, printable(path)));
    }
    for (std::size_t i = 0; i + 1 < folder.parts.size() && !folder.level; ++i) {
      if (split_from_folder(folder.parts[i])) folder.level = i;
    }
  }
  move_strays(&found);
  if (found.folders.empty() && found.loose.empty()) {
    throw Error(fmt::format(
        "{}: no images{}; expected a folder of PNG or JPEG images for every class", source,
        found.other.empty()
            ? ""
            : fmt::format(" among {} ({})", quantity(found.other.size(), "file", "files"),
                          name_some(found.other))));
  }
  ImageFolders out;
  const bool divided_otherwise = !options.lists.empty() || !options.fractions.empty();
  if (!divided_otherwise && !found.folders.empty()) {
    out.how = division_by_folders(&found, source, options);
  }
  const bool divided = std::ranges::any_of(
      found.folders, [](const Folder& folder) { return folder.level.has_value(); });
  if (!found.loose.empty() && !divided) {
    throw Error(
        fmt::format("{}: expected a folder of images for every class, found the image '{}' "
                    "outside of one",
                    source, printable(found.loose.front())));
  }
  note_left_out(tree, found, &out.notes);
  for (Folder& folder : found.folders) {
    ClassFolder entry;
    entry.name = joined(folder.parts, 0, folder.parts.size());
    entry.key = entry.name;
    if (folder.level) {
      entry.split = split_from_folder(folder.parts[*folder.level]);
      entry.key = joined(folder.parts, *folder.level + 1, folder.parts.size());
      if (divided_otherwise && *folder.level > 0) {
        entry.key = joined(folder.parts, 0, *folder.level) + "/" + entry.key;
      }
    }
    entry.files = std::move(folder.files);
    out.classes.push_back(std::move(entry));
  }
  return out;
}

}  // namespace kshot::data
