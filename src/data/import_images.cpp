#include <fmt/format.h>

#include <map>

#include "data/image_folders.h"
#include "data/import_common.h"
#include "io/file_tree.h"
#include "io/image.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

/// Removes pictures that cannot be read. `bad` gets one line per picture.
void leave_out_bad(const io::FileTree& tree, int channels, std::vector<ClassFolder>* folders,
                   std::vector<std::string>* bad) {
  for (ClassFolder& folder : *folders) {
    std::erase_if(folder.files, [&](const std::string& file) {
      try {
        io::decode_image(tree.read(file), channels, tree.name(file));
        return false;
      } catch (const Error& error) {
        bad->emplace_back(error.what());
        return true;
      }
    });
  }
}

/// Merges classes of one name below different folders that name splits, because lists or fractions
/// divide instead of these folders. Does nothing where a list names a class together with such a
/// folder.
void merge_classes(const SplitOptions& options, std::vector<ClassFolder>* folders,
                   std::vector<std::string>* notes) {
  std::map<std::string, std::size_t> names;
  for (std::size_t c = 0; c < folders->size(); ++c) {
    if ((*folders)[c].split) names.emplace((*folders)[c].name, c);
  }
  if (names.empty()) return;
  if (!options.lists.empty()) {
    for (const ListedName& entry : read_split_lists(options)) {
      if (names.contains(entry.name)) return;
    }
  }
  std::map<std::string, ClassFolder> merged;
  for (ClassFolder& folder : *folders) {
    const auto [entry, fresh] = merged.try_emplace(folder.key, folder);
    entry->second.name = folder.key;
    if (fresh) continue;
    auto& files = entry->second.files;
    files.insert(files.end(), folder.files.begin(), folder.files.end());
  }
  notes->push_back(fmt::format(
      "some folders have names of splits, but {} divides the classes: class folders with the same "
      "name form one class ({} class folders form {} classes)",
      options.lists.empty() ? "--fractions" : "--split", folders->size(), merged.size()));
  folders->clear();
  for (auto& [key, folder] : merged) folders->push_back(std::move(folder));
}

/// Notes folders of one name that stand below different folders: each one is a class of its own.
void note_equal_names(const std::vector<ClassFolder>& folders, std::vector<std::string>* notes) {
  std::map<std::string, std::string> seen;
  std::map<std::string, std::string> twice;
  for (const ClassFolder& folder : folders) {
    const std::string leaf = folder.name.substr(folder.name.rfind('/') + 1);
    const auto [first, fresh] = seen.emplace(leaf, folder.name);
    if (!fresh) twice.emplace(first->second, folder.name);
  }
  if (twice.empty()) return;
  const auto& [first, second] = *twice.begin();
  notes->push_back(
      fmt::format("{} with the same name in different folders are separate classes ('{}', '{}'), "
                  "and may be in different splits",
                  twice.size() == 1 ? "class folders" : "many class folders", first, second));
}

/// Writes pictures one by one. The first one decides the size if the options do not.
class PictureWriter {
 public:
  PictureWriter(const ImagesImport& options, const io::FileTree& tree, std::string division)
      : options_(options), tree_(tree) {
    header_.kind = GroupKind::classes;
    header_.element = Element::u8;
    header_.input = {options.grey ? 1 : 3, options.height, options.width, true};
    header_.preprocessing.kind = Preprocessing::Kind::image;
    header_.preprocessing.inverted = options.invert;
    header_.preprocessing.background = options.background;
    header_.preprocessing.fit = options.height == 0 ? ImageFit::exact
                                : options.crop      ? ImageFit::crop
                                                    : ImageFit::squeeze;
    header_.provenance = provenance_of("images", {options.source.string()}, division);
  }

  void add_class(const ClassFolder& folder, const std::string& name, Split split) {
    bool begun = false;
    for (const std::string& file : folder.files) {
      io::Image image = io::decode_image(tree_.read(file), header_.input.channels, tree_.name(file),
                                         options_.background);
      transparent_ += image.transparent ? 1 : 0;
      if (header_.input.height == 0) {
        header_.input.height = image.height;
        header_.input.width = image.width;
        reference_file_ = file;
      }
      if (options_.height == 0 &&
          (image.height != header_.input.height || image.width != header_.input.width)) {
        throw Error(
            fmt::format("{}: {}x{} pixels, but '{}' has {}x{}; expected images of one "
                        "size, or --size",
                        tree_.name(file), image.width, image.height, reference_file_,
                        header_.input.width, header_.input.height));
      }
      if (!writer_) {
        header_.preprocessing.input = header_.input;
        writer_ = std::make_unique<DatasetWriter>(options_.output, header_);
      }
      image = prepare_image(header_.preprocessing, std::move(image), tree_.name(file));
      if (!begun) writer_->begin_group(name, split);
      begun = true;
      writer_->add(std::span<const std::uint8_t>(image.pixels));
    }
  }

  DatasetWriter* writer() { return writer_.get(); }
  std::size_t transparent() const { return transparent_; }

 private:
  const ImagesImport& options_;
  const io::FileTree& tree_;
  DatasetHeader header_;
  std::unique_ptr<DatasetWriter> writer_;
  std::string reference_file_;
  std::size_t transparent_ = 0;
};

void check_options(const ImagesImport& options) {
  if (options.height < 0 || options.width < 0 || options.height > 4096 || options.width > 4096 ||
      (options.height == 0) != (options.width == 0)) {
    throw Error(fmt::format("--size {}x{}: expected height and width of 1 to 4096 pixels",
                            options.height, options.width));
  }
  if (options.splits.by_folders &&
      (!options.splits.lists.empty() || !options.splits.fractions.empty())) {
    throw Error("--by-folders: cannot be combined with --split or --fractions");
  }
}

}  // namespace

ImportSummary import_images(const ImagesImport& options) {
  check_options(options);
  const std::string source = options.source.string();
  const auto tree = io::FileTree::open(options.source);
  ImageFolders found = find_image_folders(*tree, source, options.splits);
  std::vector<std::string> notes = std::move(found.notes);
  std::vector<std::string> bad;
  if (options.skip_bad) leave_out_bad(*tree, options.grey ? 1 : 3, &found.classes, &bad);
  if (found.how.empty()) merge_classes(options.splits, &found.classes, &notes);

  if (found.how.empty()) note_equal_names(found.classes, &notes);

  std::vector<NamedClass> classes;
  for (const ClassFolder& folder : found.classes) {
    NamedClass entry{folder.name, folder.key, folder.files.size(), classes.size(), {}, {}};
    entry.given = folder.split;
    classes.push_back(std::move(entry));
  }
  const std::string advice =
      found.how.empty() ? ""
                        : ", or --fractions A,B,C, which puts the pictures of equal names together "
                          "and divides the classes at random";
  Division division =
      divide_classes(options.splits, source, options.min_examples, found.how, advice, &classes);
  notes.insert(notes.end(), division.notes.begin(), division.notes.end());

  PictureWriter pictures(options, *tree, division.how);
  for (std::size_t c = 0; c < classes.size(); ++c) {
    for (const Split split : classes[c].splits) {
      pictures.add_class(found.classes[classes[c].index], classes[c].name, split);
    }
    if (options.interrupt) options.interrupt();
    if (options.progress) options.progress(c + 1, classes.size());
  }
  if (pictures.transparent() > 0 && options.background == io::Background::stored) {
    notes.push_back(
        fmt::format("{} pictures have transparent parts, whose stored colours count "
                    "(--background white or black lays them on it)",
                    pictures.transparent()));
  }
  note_bad_pictures(bad, &notes);
  return finish(pictures.writer(), options, std::move(division.how), std::move(notes));
}

}  // namespace kshot::data
