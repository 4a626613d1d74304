#include "cli/import_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "cli/checks.h"
#include "cli/text_options.h"
#include "data/division.h"
#include "data/import.h"
#include "io/output_file.h"
#include "kshot/error.h"

namespace kshot::cli {
namespace {

constexpr const char* overview = R"(Examples:
  kshot import omniglot images_background.zip images_evaluation.zip -o omniglot.kshot \
      --split train=vinyals_trainval.txt --split test=vinyals_test.txt
  kshot import images photos/ -o photos.kshot --size 84 --fractions 0.6,0.2,0.2
  kshot import arrays leaves100.npy -o leaves.kshot --classes classes.tsv
  kshot import table patients.csv -o patients.kshot --task patient --target score

`kshot import KIND --help` has more. In a configuration, data.path names the data file.)";

constexpr const char* omniglot_examples = R"(Examples:
  kshot import omniglot images_background.zip images_evaluation.zip -o omniglot.kshot \
      --split train=vinyals_train.txt --split validation=vinyals_val.txt \
      --split test=vinyals_test.txt
  kshot import omniglot images_background/ images_evaluation/ -o omniglot.kshot \
      --split train=train.txt --split test=test.txt --size 84

A split list has a line for every class: Alphabet/characterNN/rotDDD, turned counter-clockwise by
DDD = 000, 090, 180 or 270 degrees. Strokes become 1, paper 0.)";

constexpr const char* images_examples = R"(Examples:
  kshot import images birds/ -o birds.kshot --size 84
  kshot import images birds.zip -o birds.kshot --size 64x48 --crop --grey \
      --split train=train_classes.txt --split test=test_classes.txt
  kshot import images birds/ -o birds.kshot --size 84 --fractions 0.7,0.1,0.2 --seed 3

The source has a folder of PNG or JPEG images for every class: birds/robin/0001.jpg. Folders above
the class folders that are called train, val, test or the like (training, meta-train, base; valid,
dev; testing, eval, novel) are the splits, unless --split or --fractions says otherwise. Where the
folders leave that open, nothing is imported and --by-folders, --fractions or --split settles it. A
split list has the name of a class folder on every line. One class in two splits is an error.)";

constexpr const char* arrays_examples = R"(Examples:
  kshot import arrays leaves100.npy -o leaves.kshot --classes classes.tsv --standardise
  kshot import arrays faces.npy --labels ids.npy -o faces.kshot --fractions 0.6,0.2,0.2
  kshot import arrays cifar.npz:images --labels cifar.npz:fine -o cifar.kshot --layout hwc

Without labels the array is [classes, examples, ...], with labels it is [N, ...] and the labels are
whole numbers [N]. An example is a vector [d] or an image [H, W], [H, W, C] or [C, H, W]; images of
bytes become numbers in [0, 1]. The table --classes has a first column of indices of classes, from
0, and columns `name` or `class`, and `split` (train, val, test).)";

constexpr const char* table_examples = R"(Examples:
  kshot import table patients.csv -o patients.kshot --task patient --target score
  kshot import table visits.csv -o visits.kshot --task clinic --target outcome --classification \
      --categorical ward,day --missing drop --split-column part
  kshot import table x.npy -o parkinsons.kshot --task subject.npy --target y_motor_total.npy:0 \
      --columns columns.tsv --tasks tasks.tsv

Every value of the task column is a few-shot task of its own; tasks may differ in size. Numeric
columns and numeric targets are standardised with mean and deviation over the training tasks, which
the data file and every checkpoint keep; columns of text become one-hot. How each column is read is
printed. A text column is refused where it looks like numbers or dates in another notation, or where
more than half of its values (and more than 3) are distinct: --decimal, --thousands, --date,
--categorical or --ignore settles it. The table --tasks has a first column of task names and a column
`split` (train, val, test).)";

/// Options that every kind of source has.
struct Common {
  std::string output;
  std::vector<std::string> split_lists;
  std::string fractions;
  std::uint64_t seed = 1;
  bool allow_shared = false;
};

void add_common(CLI::App& command, Common& common, bool fractions) {
  command.add_option("-o,--output", common.output, "Data file to write")
      ->required()
      ->type_name("FILE");
  command
      .add_option("--split", common.split_lists,
                  "File with the names of train, validation or test, one per line. May be given "
                  "several times")
      ->type_name("SPLIT=FILE")
      ->allow_extra_args(false);
  if (fractions) {
    command
        .add_option(
            "--fractions", common.fractions,
            "Shares of train, validation and test in a random division (default, where nothing "
            "else divides: 0.64,0.16,0.2)")
        ->type_name("A,B,C");
    command.add_option("--seed", common.seed, "Seed of the random division")
        ->check(number_from(0))
        ->capture_default_str();
  }
}

/// Options of the imports whose groups are classes.
void add_class_options(CLI::App& command, Common& common, data::ClassImport& options) {
  command
      .add_option("--min-examples", options.min_examples,
                  "Leave out classes with fewer examples than this")
      ->check(number_from(1))
      ->capture_default_str();
  command.add_flag("--allow-shared-classes", common.allow_shared,
                   "Accept a class in several splits, and several classes with one name");
}

Split parse_split(const std::string& text, const std::string& name) {
  if (const auto split = data::split_from_name(name)) return *split;
  throw Error(fmt::format("--split {}: expected train=FILE, validation=FILE or test=FILE", text));
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    if (end > at) out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

void apply(const Common& common, data::ImportCommon* options) {
  options->output = common.output;
  // The output is checked before the sources are read, so that a wrong name costs no time.
  io::OutputFile(options->output, io::OutputKind::data_file);
  options->progress = [bar = std::shared_ptr<Progress>()](std::uint64_t done,
                                                          std::uint64_t total) mutable {
    if (!bar) bar = std::make_shared<Progress>(total, "classes");
    bar->update(done);
    if (done == total) bar->finish();
  };
  for (const std::string& text : common.split_lists) {
    const auto equals = text.find('=');
    const Split split = parse_split(text, text.substr(0, equals));
    if (equals == std::string::npos || equals + 1 == text.size()) parse_split(text, "");
    options->splits.lists.emplace_back(split, text.substr(equals + 1));
  }
  if (!common.fractions.empty()) {
    if (!options->splits.lists.empty()) {
      throw Error("--fractions: expected without --split");
    }
    for (const std::string& part : split_commas(common.fractions)) {
      const auto share = io::parse_number(part);
      if (!share) {
        throw Error(fmt::format("--fractions {}: expected three numbers", common.fractions));
      }
      options->splits.fractions.push_back(*share);
    }
  }
  options->splits.seed = common.seed;
  options->splits.allow_shared = common.allow_shared;
}

/// Reads "84" or "64x48" (width x height).
void parse_size(const std::string& text, int* height, int* width) {
  const auto cross = text.find('x');
  const auto w = io::parse_number(text.substr(0, cross));
  const auto h = cross == std::string::npos ? w : io::parse_number(text.substr(cross + 1));
  const auto whole = [](std::optional<double> v) {
    return v && *v >= 1 && *v <= 4096 && *v == static_cast<int>(*v);
  };
  if (!whole(w) || !whole(h)) {
    throw Error(fmt::format("--size {}: expected PIXELS or WIDTHxHEIGHT, 1 to 4096", text));
  }
  *height = static_cast<int>(*h);
  *width = static_cast<int>(*w);
}

std::string shape_text(const FeatureShape& shape) {
  return shape.spatial ? fmt::format("images of {} x {} x {} (channels, height, width)",
                                     shape.channels, shape.height, shape.width)
                       : fmt::format("vectors of {}", shape.size());
}

void print_summary(const data::ImportSummary& summary) {
  const data::DatasetHeader& header = summary.header;
  const bool tasks = header.kind == data::GroupKind::tasks;
  fmt::print("{}: {}{}, {:.1f} MB\n", summary.output.string(), shape_text(header.input),
             !tasks ? std::string()
             : header.target == TargetKind::value
                 ? fmt::format(", {} target{}", header.outputs, header.outputs == 1 ? "" : "s")
                 : fmt::format(", {} labels", header.outputs),
             static_cast<double>(summary.bytes) * 1e-6);
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    const auto groups = header.split_groups(split);
    if (groups.empty()) continue;
    std::uint64_t rows = 0;
    std::uint32_t fewest = header.groups[groups.front()].rows;
    std::uint32_t most = fewest;
    for (const std::uint32_t g : groups) {
      rows += header.groups[g].rows;
      fewest = std::min(fewest, header.groups[g].rows);
      most = std::max(most, header.groups[g].rows);
    }
    fmt::print("  {:<10} {:>6} {}, {:>8} {} ({} per {})\n", split_name(split), groups.size(),
               tasks ? "tasks" : "classes", rows, tasks ? "rows" : "examples",
               fewest == most ? fmt::format("{}", fewest) : fmt::format("{} to {}", fewest, most),
               tasks ? "task" : "class");
  }
  fmt::print("  divided {}\n", summary.division);
  for (const std::string& column : summary.columns) fmt::print("  column {}\n", column);
  for (const std::string& note : summary.notes) fmt::print("  note: {}\n", note);
}

template <typename Options>
struct Request {
  Common common;
  Options options;
};

void add_omniglot(CLI::App& import) {
  auto request = std::make_shared<Request<data::OmniglotImport>>();
  CLI::App* command = import.add_subcommand("omniglot", "Omniglot's official archives or folders");
  command->footer(omniglot_examples);
  command->add_option("sources", request->options.sources, "Zip archives or folders")
      ->required()
      ->type_name("SOURCE");
  command->add_option("--size", request->options.size, "Height and width in pixels")
      ->capture_default_str();
  command->add_flag("--skip-bad", request->options.skip_bad,
                    "Leave out pictures that cannot be read, and list them");
  add_class_options(*command, request->common, request->options);
  add_common(*command, request->common, false);
  command->callback([request] {
    apply(request->common, &request->options);
    print_summary(data::import_omniglot(request->options));
  });
}

void add_images(CLI::App& import) {
  struct Images : Request<data::ImagesImport> {
    std::string size;
  };
  auto request = std::make_shared<Images>();
  CLI::App* command = import.add_subcommand("images", "A folder (or zip) of folders of images");
  command->footer(images_examples);
  command->add_option("source", request->options.source, "Folder or zip archive")->required();
  command
      ->add_option("--size", request->size,
                   "Resize to this many pixels (PIXELS or WIDTHxHEIGHT). Without it all images "
                   "must have one size")
      ->type_name("SIZE");
  command->add_flag("--grey,--gray", request->options.grey, "Use one grey channel instead of RGB");
  command->add_flag(
      "--crop", request->options.crop,
      "Cut out the centre with the wanted aspect ratio instead of stretching the image");
  command->add_flag("--invert", request->options.invert, "Make black 1 and white 0");
  command
      ->add_option(
          "--background", request->options.background,
          "Background of transparent pixels; stored: the colour that the file stores for them")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, io::Background>{{"stored", io::Background::stored},
                                                {"white", io::Background::white},
                                                {"black", io::Background::black}},
          CLI::ignore_case))
      ->option_text("stored|white|black [stored]");
  command->add_flag("--skip-bad", request->options.skip_bad,
                    "Leave out pictures that cannot be read, and list them");
  command->add_flag(
      "--by-folders", request->options.splits.by_folders,
      "Divide by the first folder above a class that is called train, val, test or the "
      "like; leave other classes out");
  add_class_options(*command, request->common, request->options);
  add_common(*command, request->common, true);
  command->callback([request] {
    apply(request->common, &request->options);
    if (!request->size.empty()) {
      parse_size(request->size, &request->options.height, &request->options.width);
    }
    print_summary(data::import_images(request->options));
  });
}

void add_arrays(CLI::App& import) {
  auto request = std::make_shared<Request<data::ArraysImport>>();
  CLI::App* command = import.add_subcommand("arrays", "Classes from NumPy arrays (.npy, .npz)");
  command->footer(arrays_examples);
  command
      ->add_option("source", request->options.source,
                   "Array of the examples; for .npz the array x, or FILE.npz:NAME")
      ->required();
  command
      ->add_option("--labels", request->options.labels,
                   "Array of the labels; default: the array y of a .npz")
      ->type_name("ARRAY");
  command
      ->add_option("--classes", request->options.splits.table,
                   "Table with the names and splits of the classes")
      ->type_name("FILE.tsv");
  command->add_option("--layout", request->options.layout, "Meaning of the axes of an example")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, data::ArrayLayout>{{"auto", data::ArrayLayout::automatic},
                                                   {"hwc", data::ArrayLayout::hwc},
                                                   {"chw", data::ArrayLayout::chw},
                                                   {"hw", data::ArrayLayout::hw},
                                                   {"vectors", data::ArrayLayout::vectors}},
          CLI::ignore_case))
      ->option_text("auto|vectors|hw|hwc|chw [auto]");
  command->add_flag(
      "--standardise", request->options.standardise,
      "Vectors: scale every feature to mean 0 and standard deviation 1 over the training classes");
  add_class_options(*command, request->common, request->options);
  add_common(*command, request->common, true);
  command->callback([request] {
    apply(request->common, &request->options);
    print_summary(data::import_arrays(request->options));
  });
}

void add_table(CLI::App& import) {
  struct Tables : Request<data::TableImport> {
    TextOptions text;
  };
  auto request = std::make_shared<Tables>();
  data::TableImport& options = request->options;
  CLI::App* command = import.add_subcommand("table", "Tasks from a CSV table or arrays of rows");
  command->footer(table_examples);
  command->add_option("source", options.source, "CSV or TSV file, or array [rows, columns]")
      ->required();
  command
      ->add_option(
          "--task", options.task,
          "Column or array that names the task of each row. Without it all rows are one task")
      ->type_name("COLUMN");
  command->add_option("--target", options.targets, "Columns or arrays of the targets (a,b,...)")
      ->required()
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("COLUMN");
  command->add_flag("--classification", options.classification,
                    "The target has labels, not numbers");
  command->add_option("--tasks", options.splits.table, "Table with the splits of the tasks")
      ->type_name("FILE.tsv");
  command
      ->add_option("--split-column", options.split_column,
                   "Column that has train, validation or test in each row")
      ->type_name("COLUMN");
  command
      ->add_option("--categorical", options.categorical,
                   "Columns to read as categories, also where they have numbers (a,b,...)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("COLUMN");
  command
      ->add_option("--categorical-array", options.categorical_arrays,
                   "Array [rows, columns] of category codes, in addition to the source")
      ->allow_extra_args(false)
      ->type_name("ARRAY");
  command->add_option("--ignore", options.ignore, "Columns to leave out (a,b,...)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("COLUMN");
  command
      ->add_option("--columns", options.columns,
                   "For arrays: table whose column `name` has the names of the source's columns")
      ->type_name("FILE.tsv");
  command
      ->add_option(
          "--missing", options.missing,
          "What to do with a missing value: error, mean (replace it by the training mean, a "
          "category by none), or drop (leave the row out)")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, data::MissingRule>{{"error", data::MissingRule::error},
                                                   {"mean", data::MissingRule::mean},
                                                   {"drop", data::MissingRule::drop}},
          CLI::ignore_case))
      ->option_text("error|mean|drop [error]");
  command->add_flag("--raw-targets", options.raw_targets, "Do not standardise the targets");
  command->add_flag("--raw-inputs", options.raw_inputs,
                    "Do not standardise numeric columns, for example bits of fingerprints");
  command
      ->add_option("--date", options.dates,
                   "Columns of ISO 8601 dates or times, to read as days (a,b,...)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("COLUMN");
  add_text_options(*command, request->text);
  add_common(*command, request->common, true);
  command->callback([request] {
    apply(request->common, &request->options);
    request->options.delimiter = request->text.delimiter();
    request->options.format = request->text.format({});
    print_summary(data::import_table(request->options));
  });
}

}  // namespace

void add_import_command(CLI::App& app) {
  CLI::App* import =
      app.add_subcommand("import", "Import images, arrays or a table into a data file");
  import->require_subcommand(1);
  import->footer(overview);
  add_omniglot(*import);
  add_images(*import);
  add_arrays(*import);
  add_table(*import);
}

}  // namespace kshot::cli
