#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "io/file_tree.h"
#include "io/image.h"
#include "io/import_common.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

/// One drawing: a file of one of the sources.
struct Drawing {
  const FileTree* tree;
  std::string file;
};

/// "Alphabet/characterNN" to its drawings, whatever lies above the alphabets.
std::map<std::string, std::vector<Drawing>> find_characters(
    const std::vector<std::unique_ptr<FileTree>>& trees) {
  std::map<std::string, std::vector<Drawing>> out;
  for (const auto& tree : trees) {
    for (const std::string& file : tree->files()) {
      if (!is_image_name(file)) continue;
      const auto name = file.rfind('/');
      if (name == std::string::npos || name == 0) continue;
      const auto character = file.rfind('/', name - 1);
      if (character == std::string::npos ||
          !std::string_view(file).substr(character + 1).starts_with("character")) {
        continue;
      }
      const auto above = character == 0 ? std::string::npos : file.rfind('/', character - 1);
      const std::size_t begin = above == std::string::npos ? 0 : above + 1;
      out[file.substr(begin, name - begin)].push_back({tree.get(), file});
    }
  }
  return out;
}

/// Cuts "/rotDDD" off; quarter turns.
int parse_rotation(std::string* name, const std::string& where) {
  const auto at = name->rfind("/rot");
  if (at == std::string::npos) return 0;
  const std::string degrees = name->substr(at + 4);
  name->resize(at);
  int quarters = 0;
  for (const char* value : {"000", "090", "180", "270"}) {
    if (degrees == value) return quarters;
    ++quarters;
  }
  throw Error(fmt::format("{}: rotation 'rot{}'; expected rot000, rot090, rot180 or rot270", where,
                          degrees));
}

}  // namespace

ImportSummary import_omniglot(const OmniglotImport& options) {
  if (options.size < 1 || options.size > 1024) {
    throw Error(fmt::format("--size {}: expected 1 to 1024 pixels", options.size));
  }
  if (options.splits.lists.empty()) {
    throw Error(
        "import omniglot: no split lists; expected --split train=FILE --split test=FILE, "
        "files with a line Alphabet/characterNN/rotDDD for every class");
  }
  std::vector<std::unique_ptr<FileTree>> trees;
  std::vector<std::string> sources;
  for (const auto& source : options.sources) {
    trees.push_back(FileTree::open(source));
    sources.push_back(source.string());
  }
  const auto characters = find_characters(trees);
  if (characters.empty()) {
    throw Error(fmt::format(
        "{}: no Omniglot images; expected <alphabet>/characterNN/*.png as in the official archives",
        fmt::format("{}", fmt::join(sources, ", "))));
  }
  const auto listed = read_split_lists(options.splits);

  DatasetHeader header;
  header.kind = GroupKind::classes;
  header.input = {1, options.size, options.size, true};
  header.element = Element::u8;
  header.preprocessing.kind = Preprocessing::Kind::image;
  header.preprocessing.input = header.input;
  header.preprocessing.inverted = true;
  header.provenance = provenance_of("omniglot", sources, options.splits);
  DatasetWriter writer(options.output, header);

  bool training = false;
  std::string decoded;  // rotations of a character follow each other: decode it once
  std::vector<Image> drawings;
  for (std::size_t k = 0; k < listed.size(); ++k) {
    const ListedName& entry = listed[k];
    std::string name = entry.name;
    const int quarters = parse_rotation(&name, entry.where);
    if (name != decoded) {
      const auto found = characters.find(name);
      if (found == characters.end()) {
        throw Error(fmt::format("{}: no images of '{}' among the {} characters of {}", entry.where,
                                name, characters.size(),
                                fmt::format("{}", fmt::join(sources, ", "))));
      }
      drawings.clear();
      for (const Drawing& drawing : found->second) {
        Image image =
            decode_image(drawing.tree->read(drawing.file), 1, drawing.tree->name(drawing.file));
        drawings.push_back(prepare_image(header.preprocessing, std::move(image),
                                         drawing.tree->name(drawing.file)));
      }
      decoded = name;
    }
    training = training || entry.split == Split::train;
    writer.begin_group(entry.name, entry.split);
    for (const Image& image : drawings) {
      writer.add(std::span<const std::uint8_t>(rotate_image(image, quarters).pixels));
    }
    if (options.progress) options.progress(k + 1, listed.size());
  }
  if (!training) throw Error("import omniglot: no list for training; expected --split train=FILE");
  return finish(&writer, options, {});
}

}  // namespace kshot::io
