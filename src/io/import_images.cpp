#include <fmt/format.h>

#include <map>

#include "io/file_tree.h"
#include "io/image.h"
#include "io/import_common.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

struct ClassFolder {
  std::string name;
  std::optional<Split> split;  ///< from a train/val/test folder above
  std::vector<std::string> files;
};

/// Class folders in order of name; a folder that all have in common is not part of the names.
std::vector<ClassFolder> find_classes(const FileTree& tree, const std::string& source,
                                      std::size_t* skipped) {
  std::map<std::string, std::vector<std::string>> folders;
  for (const std::string& file : tree.files()) {
    if (!is_image_name(file)) {
      ++*skipped;
      continue;
    }
    const auto slash = file.rfind('/');
    if (slash == std::string::npos) {
      throw Error(
          fmt::format("{}: expected a folder of images for every class, found the image "
                      "'{}' outside of one",
                      source, file));
    }
    folders[file.substr(0, slash)].push_back(file);
  }
  if (folders.empty()) {
    throw Error(fmt::format(
        "{}: no images; expected a folder of PNG or JPEG images for every class", source));
  }
  std::size_t common = 0;  // length of the shared leading folders, with their slash
  const std::string& first = folders.begin()->first;
  while (folders.size() > 1) {
    const auto slash = first.find('/', common);
    if (slash == std::string::npos) break;
    const std::string prefix = first.substr(0, slash + 1);
    bool shared = true;
    for (const auto& [folder, files] : folders) shared = shared && folder.starts_with(prefix);
    if (!shared) break;
    common = slash + 1;
  }
  std::vector<ClassFolder> out;
  bool by_folder = true;
  for (auto& [folder, files] : folders) {
    ClassFolder entry{folder.substr(common), {}, std::move(files)};
    const auto slash = entry.name.find('/');
    if (slash != std::string::npos) entry.split = split_from_name(entry.name.substr(0, slash));
    by_folder = by_folder && entry.split.has_value();
    out.push_back(std::move(entry));
  }
  if (!by_folder) {
    for (ClassFolder& entry : out) entry.split.reset();
  }
  return out;
}

}  // namespace

ImportSummary import_images(const ImagesImport& options) {
  if (options.height < 0 || options.width < 0 || options.height > 4096 || options.width > 4096 ||
      (options.height == 0) != (options.width == 0)) {
    throw Error(fmt::format("--size {}x{}: expected height and width of 1 to 4096 pixels",
                            options.height, options.width));
  }
  const std::string source = options.source.string();
  const auto tree = FileTree::open(options.source);
  std::size_t skipped = 0;
  const std::vector<ClassFolder> classes = find_classes(*tree, source, &skipped);
  std::vector<std::string> notes;
  if (skipped > 0) notes.push_back(fmt::format("{} files are no PNG or JPEG: left out", skipped));

  std::vector<std::optional<Split>> splits;
  SplitOptions used = options.splits;
  if (used.lists.empty() && used.table.empty() && used.fractions.empty() &&
      classes.front().split.has_value()) {
    for (const ClassFolder& entry : classes) splits.push_back(entry.split);
    notes.emplace_back("splits by the folders train, val and test");
  } else {
    std::vector<std::string> names;
    for (const ClassFolder& entry : classes) names.push_back(entry.name);
    if (used.fractions.empty()) used.fractions = {0.64, 0.16, 0.2};
    splits = assign_splits(used, names, "classes", &notes);
  }
  require_training(splits, "class", source);

  const int channels = options.grey ? 1 : 3;
  int height = options.height;
  int width = options.width;
  DatasetHeader header;
  std::unique_ptr<DatasetWriter> writer;
  std::string shaped_by;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    if (!splits[c]) continue;
    bool begun = false;
    for (const std::string& file : classes[c].files) {
      Image image = decode_image(tree->read(file), channels, tree->name(file));
      if (height == 0) {
        height = image.height;
        width = image.width;
        shaped_by = file;
      }
      if (options.height == 0 && (image.height != height || image.width != width)) {
        throw Error(
            fmt::format("{}: {}x{} pixels, but '{}' has {}x{}; expected images of one size, "
                        "or --size",
                        tree->name(file), image.width, image.height, shaped_by, width, height));
      }
      if (!writer) {
        header.kind = GroupKind::classes;
        header.input = {channels, height, width, true};
        header.element = Element::u8;
        header.preprocessing.kind = Preprocessing::Kind::image;
        header.preprocessing.input = header.input;
        header.preprocessing.inverted = options.invert;
        header.preprocessing.fit = options.height == 0 ? ImageFit::exact
                                   : options.crop      ? ImageFit::crop
                                                       : ImageFit::squeeze;
        header.provenance = provenance_of("images", {source}, used);
        writer = std::make_unique<DatasetWriter>(options.output, header);
      }
      image = prepare_image(header.preprocessing, std::move(image), tree->name(file));
      if (!begun) writer->begin_group(classes[c].name, *splits[c]);
      begun = true;
      writer->add(std::span<const std::uint8_t>(image.pixels));
    }
    if (options.progress) options.progress(c + 1, classes.size());
  }
  return finish(writer.get(), options, std::move(notes));
}

}  // namespace kshot::io
