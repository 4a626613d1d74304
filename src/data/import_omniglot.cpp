#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <set>
#include <utility>

#include "data/import_common.h"
#include "io/file_tree.h"
#include "io/image.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

/// One drawing, which is a file of one of the sources.
struct Drawing {
  const io::FileTree* tree;
  std::string file;
};

/// Maps "Alphabet/characterNN" to the drawings, regardless of the folders above the alphabets.
/// Throws Error for a character with two folders, because its drawings would count twice.
std::map<std::string, std::vector<Drawing>> find_characters(
    const std::vector<std::unique_ptr<io::FileTree>>& trees) {
  std::map<std::string, std::vector<Drawing>> out;
  std::map<std::string, std::string> folders;
  for (const auto& tree : trees) {
    for (const std::string& file : tree->files()) {
      if (!io::is_image_name(file)) continue;
      const auto name = file.rfind('/');
      if (name == std::string::npos || name == 0) continue;
      const auto character = file.rfind('/', name - 1);
      if (character == std::string::npos ||
          !std::string_view(file).substr(character + 1).starts_with("character")) {
        continue;
      }
      const auto above = character == 0 ? std::string::npos : file.rfind('/', character - 1);
      const std::size_t begin = above == std::string::npos ? 0 : above + 1;
      const std::string key = file.substr(begin, name - begin);
      const std::string folder = tree->name(file.substr(0, name));
      const std::string& first = folders.emplace(key, folder).first->second;
      if (first != folder) {
        throw Error(fmt::format("{}: '{}' is also in {}; expected each character once", folder, key,
                                first));
      }
      out[key].push_back({tree.get(), file});
    }
  }
  return out;
}

/// Removes "/rotDDD" from a name and returns the number of quarter turns.
int parse_rotation(std::string* name, const std::string& location) {
  const auto at = name->rfind("/rot");
  if (at == std::string::npos) return 0;
  const std::string degrees = name->substr(at + 4);
  name->resize(at);
  int quarters = 0;
  for (const char* value : {"000", "090", "180", "270"}) {
    if (degrees == value) return quarters;
    ++quarters;
  }
  throw Error(fmt::format("{}: rotation 'rot{}'; expected rot000, rot090, rot180 or rot270",
                          location, degrees));
}

/// One line of a split list.
struct Turned {
  std::string name;  ///< as written in the list
  std::string character;
  int quarters = 0;
  Split split = Split::train;
  std::string location;
};

/// Returns the classes of the split lists. Throws Error for a class that is listed twice, unless
/// `options.allow_shared`. "Greek/character01" and "Greek/character01/rot000" are one class.
std::vector<Turned> listed_classes(const SplitOptions& options, std::vector<std::string>* notes) {
  std::vector<Turned> out;
  std::map<std::pair<std::string, int>, const ListedName*> seen;
  std::map<std::string, Split> split_of;
  std::set<std::string> across;
  const std::vector<ListedName> listed = read_split_lists(options);
  for (const ListedName& entry : listed) {
    Turned turned{entry.name, entry.name, 0, entry.split, entry.location};
    turned.quarters = parse_rotation(&turned.character, entry.location);
    const auto [first, fresh] = seen.emplace(std::pair(turned.character, turned.quarters), &entry);
    if (!fresh && !options.allow_shared) {
      throw Error(
          fmt::format("{}: '{}' is already in {}; expected every class once "
                      "(--allow-shared-classes allows repeated classes)",
                      entry.location, entry.name, first->second->location));
    }
    if (!fresh && first->second->split == entry.split) continue;
    if (split_of.emplace(turned.character, entry.split).first->second != entry.split) {
      across.insert(turned.character);
    }
    out.push_back(std::move(turned));
  }
  if (!across.empty()) {
    notes->push_back(fmt::format("{} characters are in several splits, turned differently ({})",
                                 across.size(), name_some({across.begin(), across.end()})));
  }
  return out;
}

/// Reads and prepares the drawings of one character. Drawings that cannot be read are added to
/// `bad`. If `bad` is null, they are an error.
std::vector<io::Image> read_drawings(const std::vector<Drawing>& drawings,
                                     const Preprocessing& preprocessing,
                                     std::vector<std::string>* bad) {
  std::vector<io::Image> out;
  for (const Drawing& drawing : drawings) {
    const std::string name = drawing.tree->name(drawing.file);
    try {
      io::Image image = io::decode_image(drawing.tree->read(drawing.file), 1, name);
      out.push_back(prepare_image(preprocessing, std::move(image), name));
    } catch (const Error& error) {
      if (bad == nullptr) throw;
      bad->emplace_back(error.what());
    }
  }
  return out;
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
  std::vector<std::unique_ptr<io::FileTree>> trees;
  std::vector<std::string> sources;
  for (const auto& source : options.sources) {
    trees.push_back(io::FileTree::open(source));
    sources.push_back(source.string());
  }
  const auto characters = find_characters(trees);
  if (characters.empty()) {
    throw Error(fmt::format(
        "{}: no Omniglot images; expected <alphabet>/characterNN/*.png as in the official archives",
        fmt::format("{}", fmt::join(sources, ", "))));
  }
  std::vector<std::string> notes;
  const std::vector<Turned> listed = listed_classes(options.splits, &notes);
  const std::string how = lists_how(options.splits);

  DatasetHeader header;
  header.kind = GroupKind::classes;
  header.input = {1, options.size, options.size, true};
  header.element = Element::u8;
  header.preprocessing.kind = Preprocessing::Kind::image;
  header.preprocessing.input = header.input;
  header.preprocessing.inverted = true;
  header.provenance = provenance_of("omniglot", sources, how);
  DatasetWriter writer(options.output, header);

  std::string decoded;  // rotations of a character are neighbours, so that each is decoded once
  std::vector<io::Image> drawings;
  // Entries are by character, because a character may be read twice.
  std::map<std::string, std::vector<std::string>> bad;
  std::vector<std::string> small;
  std::size_t written = 0;
  for (std::size_t k = 0; k < listed.size(); ++k) {
    const Turned& entry = listed[k];
    if (entry.character != decoded) {
      const auto found = characters.find(entry.character);
      if (found == characters.end()) {
        throw Error(fmt::format("{}: no images of '{}' among the {} characters of {}",
                                entry.location, entry.character, characters.size(),
                                fmt::format("{}", fmt::join(sources, ", "))));
      }
      std::vector<std::string> unread;
      drawings =
          read_drawings(found->second, header.preprocessing, options.skip_bad ? &unread : nullptr);
      if (!unread.empty()) bad[entry.character] = std::move(unread);
      decoded = entry.character;
    }
    if (drawings.empty() || drawings.size() < options.min_examples) {
      small.push_back(fmt::format("{}: {}", entry.name, drawings.size()));
    } else {
      ++written;
      writer.begin_group(entry.name, entry.split);
      for (const io::Image& image : drawings) {
        writer.add(std::span<const std::uint8_t>(io::rotate_image(image, entry.quarters).pixels));
      }
    }
    if (options.interrupt) options.interrupt();
    if (options.progress) options.progress(k + 1, listed.size());
  }
  if (written == 0) throw Error("import omniglot: no class is left (--min-examples)");
  if (!small.empty()) {
    notes.push_back(fmt::format("left out: {} classes with fewer than {} examples ({})",
                                small.size(), options.min_examples, name_some(small)));
  }
  std::vector<std::string> lines;
  for (const auto& [character, unread] : bad) {
    lines.insert(lines.end(), unread.begin(), unread.end());
  }
  note_bad_pictures(lines, &notes);
  return finish(&writer, options, how, std::move(notes));
}

}  // namespace kshot::data
