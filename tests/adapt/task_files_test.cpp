// The inputs that `adapt` gives to a network equal those that the import stored for the same files,
// bit for bit. Also the files that it refuses.
#include "cli/task_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cli/program.h"
#include "data/dataset.h"
#include "data/files.h"
#include "io/npy.h"
#include "kshot/learner.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::cli {
namespace {

using io::NpyArray;
using test::error_text;
using test::Outcome;
using test::write_text;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class AdaptFiles : public testing::Test {
 protected:
  Outcome kshot(const std::vector<std::string>& arguments) const {
    return test::run(folder_.path(), arguments);
  }
  /// Imports with `arguments` into d.kshot and trains a classifier with two ways on it for one
  /// step.
  void import_and_train(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "import");
    arguments.insert(arguments.end(), {"-o", "d.kshot"});
    const Outcome imported = kshot(arguments);
    ASSERT_EQ(imported.status, 0) << imported.error;
    printed_ = imported.out;
    data_ = data::Dataset::open(folder_ / "d.kshot");
    const FeatureShape& in = data_->header().input;
    const bool tasks = data_->header().kind == data::GroupKind::tasks;
    const bool labels = !tasks || data_->header().target == TargetKind::label;
    const int outputs = tasks ? data_->header().outputs : ways_;
    std::string network =
        in.spatial
            ? fmt_list("type = \"sequential\"\ninput = [", {in.channels, in.height, in.width}) +
                  "layers = [ { type = \"flatten\" }, { type = \"linear\", out = " +
                  std::to_string(outputs) + " } ]\n"
            : fmt_list("type = \"mlp\"\nlayers = [", {in.size(), 4, outputs});
    write_text(folder_ / "c.toml",
               "algorithm = \"maml\"\ninner.steps = 1\n[network]\n" + network +
                   "[loss]\ntype = \"" + (labels ? "cross_entropy" : "mse") +
                   "\"\n[data]\nsource = \"file\"\npath = \"d.kshot\"\nshots = 1\nqueries = 1\n" +
                   (labels ? "ways = " + std::to_string(outputs) + "\n" : "") +
                   (tasks ? "variable_size = true\n" : "") +
                   "[train]\nsteps = 1\nmeta_batch = 2\nvalidate_every = 0\n");
    const Outcome trained = kshot({"train", "c.toml", "--out", "run", "--quiet"});
    ASSERT_EQ(trained.status, 0) << trained.error;
    learner_ = std::make_unique<Learner>(folder_ / "run");
  }
  static std::string fmt_list(std::string text, const std::vector<int>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
    }
    return text + "]\n";
  }
  TaskFiles read(const std::string& support, const std::string& query,
                 const TaskFileOptions& options = {}) const {
    return read_task_files(*learner_, folder_ / support, folder_ / query, options);
  }
  /// The rows of a file that is both the support file and the query file.
  std::vector<float> rows(const std::string& file, const TaskFileOptions& options = {}) const {
    const TaskFiles task = read(file, file, options);
    EXPECT_EQ(task.support_x, task.query_x);
    return task.query_x;
  }
  std::string fault(const std::string& support, const std::string& query,
                    const TaskFileOptions& options = {}) const {
    return error_text([&] { read(support, query, options); });
  }
  std::string fault(const std::string& file, const TaskFileOptions& options = {}) const {
    return fault(file, file, options);
  }
  void write_rows(const std::string& file, const NpyArray& x,
                  const std::vector<std::int64_t>& y) const {
    io::write_npz(folder_ / file,
                  {{"x", x}, {"y", NpyArray::from(std::span<const std::int64_t>(y), {y.size()})}});
  }

  test::TempFolder folder_;
  int ways_ = 2;
  std::string printed_;
  std::shared_ptr<const data::Dataset> data_;
  std::unique_ptr<Learner> learner_;
};

// ---- pictures ----

class Pictures : public AdaptFiles {
 protected:
  /// Writes two classes of two pictures, 12 x 20. No two pixels of a picture are equal.
  void SetUp() override {
    std::string list = "file,label\n";
    for (int i = 0; i < 4; ++i) {
      test::Picture picture{12, 20, 3, {}};
      for (int p = 0; p < 12 * 20 * 3; ++p) {
        picture.pixels.push_back(static_cast<std::uint8_t>((p * 7 + i * 31 + p * p / 11) % 256));
      }
      const std::string name =
          std::string(i < 2 ? "pictures/a/" : "pictures/b/") + std::to_string(i) + ".png";
      write_text(folder_ / name, test::png_bytes(picture));
      list += name + (i < 2 ? ",a\n" : ",b\n");
    }
    write_text(folder_ / "task.csv", list);
  }
  void expect_what_was_stored() {
    EXPECT_EQ(rows("task.csv"), test::all_rows(*data_)) << "bit for bit";
  }
};

TEST_F(Pictures, Squeezed) {
  import_and_train({"images", "pictures", "--size", "8", "--fractions", "1,0,0"});
  expect_what_was_stored();
}
TEST_F(Pictures, CroppedGreyInverted) {
  import_and_train({"images", "pictures", "--size", "8x9", "--crop", "--grey", "--invert",
                    "--fractions", "1,0,0"});
  expect_what_was_stored();
}
TEST_F(Pictures, OfTheirOwnSizeAlone) {
  import_and_train({"images", "pictures", "--fractions", "1,0,0"});
  expect_what_was_stored();
  write_text(folder_ / "other.png", test::png_bytes(test::plain(10, 20, 3, 9)));
  write_text(folder_ / "other.csv", "file,label\nother.png,a\npictures/b/2.png,b\n");
  EXPECT_THAT(fault("other.csv"), AllOf(HasSubstr("other.png"), HasSubstr("20 x 10 pixels"),
                                        HasSubstr("expected 20 x 12")));
}
TEST_F(Pictures, AsArraysOfPixelsByShape) {
  import_and_train({"images", "pictures", "--size", "6x4", "--invert", "--fractions", "1,0,0"});
  std::vector<std::uint8_t> hwc(2 * 4 * 6 * 3), chw(hwc.size());
  for (std::size_t i = 0; i < hwc.size(); ++i) hwc[i] = static_cast<std::uint8_t>(i);
  std::vector<float> expected(hwc.size());
  for (std::size_t n = 0; n < 2; ++n) {
    for (std::size_t p = 0; p < 24; ++p) {
      for (std::size_t c = 0; c < 3; ++c) {
        const std::size_t to = n * 72 + c * 24 + p;
        chw[to] = hwc[n * 72 + p * 3 + c];
        expected[to] = static_cast<float>(255 - chw[to]) * (1.0f / 255.0f);
      }
    }
  }
  using Bytes = std::span<const std::uint8_t>;
  write_rows("hwc.npz", NpyArray::from(Bytes(hwc), {2, 4, 6, 3}), {0, 1});
  write_rows("chw.npz", NpyArray::from(Bytes(chw), {2, 3, 4, 6}), {0, 1});
  EXPECT_EQ(rows("hwc.npz"), expected);
  EXPECT_EQ(rows("chw.npz"), expected);
  // The number of elements fits, but the shape does not.
  write_rows("turned.npz", NpyArray::from(Bytes(hwc), {2, 6, 4, 3}), {0, 1});
  write_rows("flat.npz", NpyArray::from(Bytes(hwc), {2, 72}), {0, 1});
  for (const char* file : {"turned.npz", "flat.npz"}) {
    EXPECT_THAT(fault(file),
                AllOf(HasSubstr(file), HasSubstr("shape (2, "),
                      HasSubstr("[4, 6, 3] (height, width, channels)"), HasSubstr("[3, 4, 6]")));
  }
  TaskFileOptions options;
  options.layout = data::ArrayLayout::chw;
  EXPECT_THAT(fault("hwc.npz", options), HasSubstr("expected examples of [3, 4, 6]"));
  std::vector<float> numbers(hwc.begin(), hwc.end());
  write_rows("floats.npz", NpyArray::from(std::span<const float>(numbers), {2, 4, 6, 3}), {0, 1});
  EXPECT_THAT(fault("floats.npz"), AllOf(HasSubstr("float32"), HasSubstr("trained on pixels")));
}
TEST_F(Pictures, AnOpenLayoutIsAsked) {
  import_and_train({"images", "pictures", "--size", "3", "--fractions", "1,0,0"});
  std::vector<std::uint8_t> x(2 * 27);
  std::iota(x.begin(), x.end(), std::uint8_t{0});
  write_rows("x.npz", NpyArray::from(std::span<const std::uint8_t>(x), {2, 3, 3, 3}), {0, 1});
  EXPECT_THAT(fault("x.npz"), HasSubstr("--layout hwc or --layout chw"));
  TaskFileOptions options;
  options.layout = data::ArrayLayout::hwc;
  EXPECT_EQ(rows("x.npz", options)[1], 3.0f * (1.0f / 255.0f));
  options.layout = data::ArrayLayout::chw;
  EXPECT_EQ(rows("x.npz", options)[1], 1.0f * (1.0f / 255.0f));
}

// ---- arrays ----

template <typename T>
NpyArray numbers(std::vector<std::size_t> shape, double scale, double shift = 0.0) {
  std::size_t size = 1;
  for (const std::size_t dim : shape) size *= dim;
  std::vector<T> values;
  for (std::size_t i = 0; i < size; ++i) {
    values.push_back(
        static_cast<T>(static_cast<double>((i * 37 + i * i / 5) % 256) * scale + shift));
  }
  return NpyArray::from(std::span<const T>(values), std::move(shape));
}

TEST_F(AdaptFiles, ArraysAsTheyWereImported) {
  struct Case {
    const char* what;
    // [4, ...]: two classes of two rows.
    NpyArray x;
    std::vector<std::string> options;
  };
  for (const Case& c :
       std::vector<Case>{{"bytes HWC", numbers<std::uint8_t>({4, 5, 4, 3}, 1), {}},
                         {"bytes CHW", numbers<std::uint8_t>({4, 3, 5, 4}, 1), {}},
                         {"bytes HW", numbers<std::uint8_t>({4, 5, 4}, 1), {}},
                         {"floats to 255, HWC", numbers<float>({4, 5, 4, 3}, 1), {}},
                         {"doubles to 1, HW", numbers<double>({4, 5, 4}, 1.0 / 255), {}},
                         {"two channels", numbers<float>({4, 5, 4, 2}, 1), {"--layout", "hwc"}},
                         {"vectors", numbers<double>({4, 6}, 0.37), {}},
                         {"standardised", numbers<double>({4, 6}, 0.37), {"--standardise"}},
                         {"standardised int64",
                          numbers<std::int64_t>({4, 6}, 1, 8589934592.0),
                          {"--standardise"}},
                         {"bytes of vectors", numbers<std::uint8_t>({4, 6}, 1), {}}}) {
    SCOPED_TRACE(c.what);
    for (const char* name : {"d.kshot", "run"}) std::filesystem::remove_all(folder_ / name);
    write_rows("x.npz", c.x, {0, 0, 1, 1});
    std::vector<std::string> arguments = {"arrays", "x.npz", "--fractions", "1,0,0"};
    arguments.insert(arguments.end(), c.options.begin(), c.options.end());
    import_and_train(arguments);
    EXPECT_EQ(rows("x.npz"), test::all_rows(*data_)) << "bit for bit";
  }
}

TEST_F(AdaptFiles, UnitsAreThoseOfTheImport) {
  write_rows("floats.npz", numbers<float>({4, 5, 4}, 1), {0, 0, 1, 1});
  import_and_train({"arrays", "floats.npz", "--fractions", "1,0,0"});
  EXPECT_THAT(printed_, HasSubstr("numbers from 0 to 2"));
  write_rows("bytes.npz", numbers<std::uint8_t>({4, 5, 4}, 1), {0, 0, 1, 1});
  EXPECT_EQ(rows("bytes.npz"), test::all_rows(*data_)) << "bytes are not divided by 255";

  for (const char* name : {"d.kshot", "run"}) std::filesystem::remove_all(folder_ / name);
  write_rows("unit.npz", numbers<float>({4, 5, 4}, 1.0 / 255), {0, 0, 1, 1});
  import_and_train({"arrays", "unit.npz", "--fractions", "1,0,0"});
  EXPECT_THAT(fault("bytes.npz"),
              AllOf(HasSubstr("bytes.npz: x"), HasSubstr("uint8"), HasSubstr("the same units")));
}

TEST_F(AdaptFiles, VectorsByNameOrInTheirOrder) {
  write_rows("x.npz", numbers<float>({4, 3}, 1), {0, 0, 1, 1});
  import_and_train({"arrays", "x.npz", "--fractions", "1,0,0"});
  write_text(folder_ / "named.csv", "x2,label,x0,x1\n3,a,1,2\n6,b,4,5\n");
  EXPECT_THAT(rows("named.csv"), ElementsAre(1, 2, 3, 4, 5, 6));
  write_text(folder_ / "ordered.csv", ",size,label,age,dose\n0,1,a,2,3\n1,4,b,5,6\n");
  EXPECT_THAT(rows("ordered.csv"), ElementsAre(1, 2, 3, 4, 5, 6)) << "pandas' index is left out";
  write_text(folder_ / "query.csv", "dose,age,size\n3,2,1\n");
  EXPECT_THAT(read("ordered.csv", "query.csv").query_x, ElementsAre(1, 2, 3));
  write_text(folder_ / "query.csv", "dose,age,weight\n3,2,1\n");
  EXPECT_THAT(fault("ordered.csv", "query.csv"),
              AllOf(HasSubstr("query.csv: no column 'size'"), HasSubstr("support file")));
  write_text(folder_ / "part.csv", "x0,x1,size,label\n1,2,3,a\n1,2,3,b\n");
  EXPECT_THAT(fault("part.csv"), HasSubstr("expected all of x0 to x2, or none of them"));
  write_text(folder_ / "many.csv", "a,b,c,d,label\n1,2,3,4,a\n1,2,3,4,b\n");
  EXPECT_THAT(fault("many.csv"), HasSubstr("4 features per row"));
  write_rows("square.npz", numbers<float>({2, 3, 1}, 1), {0, 1});
  EXPECT_THAT(fault("square.npz"), HasSubstr("expected [rows, 3]"));
}

// ---- tables ----

TEST_F(AdaptFiles, TablesAsTheyWereImported) {
  const std::string table =
      "patient;dose;ward;rate;seen;score;part\n"
      "a;1,5;north;12,5%;2024-05-31;1.027,5;train\n"
      "a;2,5;south;7%;2024-06-30 06:00;998;train\n"
      "b;k.A.;north;99%;2023-01-01;3;train\n"
      "b;0,25;east;1%;2020-02-29T23:59:59Z;4;train\n";
  write_text(folder_ / "t.csv", table);
  import_and_train({"table", "t.csv", "--task", "patient", "--target", "score", "--split-column",
                    "part", "--decimal", ",", "--thousands", ".", "--date", "seen",
                    "--missing-marks", "k.A.", "--missing", "mean"});
  EXPECT_THAT(printed_,
              AllOf(HasSubstr("separated by ';'"), HasSubstr("column dose: numeric"),
                    HasSubstr("column ward: 3 categories: east, north, south"),
                    HasSubstr("column rate: percentages"), HasSubstr("column seen: dates"),
                    HasSubstr("column patient: tells the tasks apart"),
                    HasSubstr("1 of 4 values missing (marked 'k.A.')")));
  const TaskFiles task = read("t.csv", "t.csv");
  EXPECT_EQ(task.support_x, test::all_rows(*data_)) << "bit for bit";
  for (std::uint64_t row = 0; row < 4; ++row) {
    EXPECT_EQ(task.support_values[row], data_->value(row)[0]);
  }
  TaskFileOptions options;
  options.text.decimal = ".";
  options.text.thousands = ",";
  write_text(folder_ / "english.csv",
             "dose,ward,rate,seen,score\n1.5,north,12.5%,2024-05-31,\"1,027.5\"\n");
  const std::vector<float> x = rows("english.csv", options);
  EXPECT_TRUE(std::equal(x.begin(), x.end(), task.support_x.begin()));
  EXPECT_THAT(fault("t.csv", "english.csv"),
              AllOf(HasSubstr("english.csv, line 2"), HasSubstr("'1.5'"), HasSubstr("decimal")));
}

TEST_F(AdaptFiles, MissingValuesByTheRuleThatIsGiven) {
  write_text(folder_ / "t.csv", "p,a,b,y\n1,1,2,3\n1,2,5,4\n1,3,1,5\n");
  import_and_train({"table", "t.csv", "--task", "p", "--target", "y", "--fractions", "1,0,0",
                    "--missing", "drop"});
  write_text(folder_ / "holes.csv", "a,b,y\n1,2,3\nNA,5,4\n3,1,\n2,2,2\n");
  write_text(folder_ / "query.csv", "a,b,y\n1,2,3\n,5,4\n3,1,\n");
  EXPECT_THAT(fault("holes.csv", "query.csv"),
              AllOf(HasSubstr("holes.csv, line 3"), HasSubstr("'a'"), HasSubstr("--missing")));
  TaskFileOptions options;
  options.missing = data::MissingRule::drop;
  const TaskFiles dropped = read("holes.csv", "query.csv", options);
  EXPECT_EQ(dropped.support_x.size(), 2u * 2u);
  EXPECT_EQ(dropped.support_values.size(), 2u);
  EXPECT_THAT(dropped.query_rows, ElementsAre(0u, 2u));
  ASSERT_EQ(dropped.query_values.size(), 2u);
  EXPECT_TRUE(std::isnan(dropped.query_values[1]));
  options.missing = data::MissingRule::mean;
  EXPECT_THAT(fault("holes.csv", "query.csv", options),
              AllOf(HasSubstr("holes.csv, line 4"), HasSubstr("no target")));
  EXPECT_EQ(read("t.csv", "query.csv", options).query_x[2], 0.0f);
}

// ---- labels ----

class Labels : public AdaptFiles {
 protected:
  void SetUp() override {
    ways_ = 3;
    write_rows("x.npz", numbers<float>({6, 1}, 1), {0, 0, 1, 1, 2, 2});
    import_and_train({"arrays", "x.npz", "--fractions", "1,0,0"});
  }
  TaskFiles with(const std::string& support, const std::string& query = "v\n1\n") {
    write_text(folder_ / "s.csv", support);
    write_text(folder_ / "q.csv", query);
    return read("s.csv", "q.csv");
  }
  std::string refused(const std::string& support, const std::string& query = "v\n1\n") {
    return error_text([&] { with(support, query); });
  }
};

TEST_F(Labels, BlanksAndSpellingsOfANumberDoNotMakeClasses) {
  EXPECT_THAT(with("v,label\n1, cat\n2,cat \n3,dog\n").label_names, ElementsAre("cat", "dog"));
  const TaskFiles numbers = with("v,label\n1,01\n2,1\n3,1.0\n4,2\n", "v,label\n1,2.0\n2,001\n");
  EXPECT_THAT(numbers.label_names, ElementsAre("01", "2"));
  EXPECT_THAT(numbers.support_labels, ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(numbers.query_labels, ElementsAre(1, 0));
  // If one label is a name, all labels are names.
  EXPECT_THAT(with("v,label\n1,01\n2,1\n3,b\n").label_names, ElementsAre("01", "1", "b"));
}

TEST_F(Labels, ClassesThatDifferInCaseAloneAreSaid) {
  write_text(folder_ / "s.csv", "v,label\n1,Cat\n2,cat\n");
  write_text(folder_ / "q.csv", "v\n1\n");
  const Outcome outcome = kshot({"adapt", "run", "--support", "s.csv", "--query", "q.csv"});
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(outcome.error, HasSubstr("\"Cat\" and \"cat\" differ only in upper and lower case"));
}

TEST_F(Labels, AMissingLabelIsNoClass) {
  for (const char* mark : {"", " ", "nan", "NaN", "NA", "None", "?"}) {
    EXPECT_THAT(refused(std::string("v,label\n1,a\n2,b\n3,") + mark + "\n"),
                AllOf(HasSubstr("s.csv, line 4"), HasSubstr("no label"), HasSubstr("--missing")))
        << mark;
  }
  write_text(folder_ / "s.csv", "v,label\n1,a\n2,None\n3,b\n");
  write_text(folder_ / "q.csv", "v,label\n1,\n2,a\n");
  TaskFileOptions options;
  options.missing = data::MissingRule::drop;
  const TaskFiles dropped = read("s.csv", "q.csv", options);
  EXPECT_THAT(dropped.label_names, ElementsAre("a", "b"));
  EXPECT_EQ(dropped.support_x.size(), 2u);
  EXPECT_THAT(dropped.query_labels, ElementsAre(-1, 0));
  options.missing.reset();
  options.text.has_missing_marks = true;
  options.text.missing_marks = "nan";
  EXPECT_THAT(read("s.csv", "q.csv", options).label_names, ElementsAre("None", "a", "b"));
  const std::vector<double> x = {1, 2, 3}, y = {0, std::nan(""), 1};
  using Doubles = std::span<const double>;
  io::write_npz(folder_ / "s.NPZ", {{"x", NpyArray::from(Doubles(x), {3, 1})},
                                    {"y", NpyArray::from(Doubles(y), {3})}});
  EXPECT_THAT(fault("s.NPZ", "q.csv"), AllOf(HasSubstr("row 1"), HasSubstr("no label")));
}

TEST_F(Labels, TwoClassesAtLeastAndNoneThatSupportLacks) {
  EXPECT_THAT(refused("v,label\n1,a\n2,a\n"), HasSubstr("only the class \"a\""));
  EXPECT_THAT(refused("v,label\n1,a\n2,b\n3,c\n4,d\n"), HasSubstr("4 classes"));
  EXPECT_THAT(refused("v,label\n1,a\n2,b\n", "v,label\n1,c\n"),
              AllOf(HasSubstr("q.csv, line 2"), HasSubstr("\"c\" is not one of a, b")));
}

TEST_F(Labels, OnlyClassesOfTheSupportRowsArePredicted) {
  write_text(folder_ / "s.csv", "v,label\n1,b\n200,a\n");
  write_text(folder_ / "q.csv", "v,label\n1,b\n50,\n200,a\n");
  const Outcome adapted = kshot({"adapt", "run", "--support", "s.csv", "--query", "q.csv"});
  ASSERT_EQ(adapted.status, 0) << adapted.error;
  EXPECT_THAT(adapted.out, HasSubstr("2 of 3 rows have targets"));
  const std::string csv = test::slurp(folder_ / "adapted" / "predictions.csv");
  EXPECT_THAT(csv, AllOf(HasSubstr("row,prediction,probability,p(a),p(b),entropy,label\n"),
                         Not(HasSubstr("unused"))));
  const auto arrays = io::read_npz(folder_ / "adapted" / "predictions.npz");
  EXPECT_EQ(arrays.at("probabilities").shape, (std::vector<std::size_t>{3, 2}));
  const std::vector<double> p = arrays.at("probabilities").to_f64();
  for (std::size_t row = 0; row < 3; ++row) EXPECT_NEAR(p[2 * row] + p[2 * row + 1], 1.0, 1e-12);
  const Prediction prediction = learner_->predict(
      {std::vector<float>{1, 200}, std::vector<std::int32_t>{0, 2}, {}}, std::vector<float>{7});
  EXPECT_EQ(prediction.mean[1], 0.0);
  EXPECT_NEAR(prediction.mean[0] + prediction.mean[2], 1.0, 1e-12);
}

TEST_F(AdaptFiles, LabelsOfATableKeepTheirOutputs) {
  write_text(folder_ / "t.csv", "v,answer\n1,1\n2,2\n3,10\n4,2\n5,10\n6,1\n");
  import_and_train({"table", "t.csv", "--target", "answer", "--classification"});
  write_text(folder_ / "s.csv", "v,answer\n1,10.0\n2, 01\n");
  write_text(folder_ / "q.csv", "v\n1\n");
  const TaskFiles task = read("s.csv", "q.csv");
  EXPECT_THAT(task.label_names, ElementsAre("1", "10"));
  EXPECT_THAT(task.label_outputs, ElementsAre(0u, 2u));
  EXPECT_THAT(task.support_labels, ElementsAre(2, 0));
  write_text(folder_ / "s.csv", "v,answer\n1,10\n2,3\n");
  EXPECT_THAT(fault("s.csv", "q.csv"), HasSubstr("label \"3\" is not one of 1, 2, 10"));
  write_text(folder_ / "s.csv", "v,answer\n1,10\n2,10\n");
  EXPECT_THAT(fault("s.csv", "q.csv"), HasSubstr("only the class \"10\""));
}

// ---- the command ----

TEST_F(AdaptFiles, BatchStatisticsOfOneOrTwoRowsAreWarnedOf) {
  test::write_class_file(folder_ / "d.kshot", {});
  write_text(folder_ / "c.toml", R"(algorithm = "maml"
inner.steps = 1
[network]
type = "sequential"
input = [1, 6, 6]
layers = [ { type = "conv", out = 4, kernel = 3 }, { type = "norm" }, { type = "flatten" },
           { type = "linear", out = 3 } ]
[loss]
type = "cross_entropy"
[data]
source = "file"
path = "d.kshot"
ways = 3
shots = 1
queries = 2
[train]
steps = 1
meta_batch = 2
validate_every = 0
)");
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "run", "--quiet"}).status, 0);
  write_rows("s.npz", numbers<float>({3, 6, 6}, 0.01), {0, 1, 2});
  const auto warning = [&](std::size_t rows, std::vector<std::string> more = {}) {
    write_rows("q.npz", numbers<float>({rows, 6, 6}, 0.01), std::vector<std::int64_t>(rows, 1));
    std::vector<std::string> arguments = {
        "adapt",   "run",   "--support", "s.npz",
        "--query", "q.npz", "--out",     std::to_string(rows) + std::to_string(more.size())};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = kshot(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    return outcome.error;
  };
  EXPECT_THAT(warning(1), HasSubstr("evaluate.norm_statistics=support"));
  EXPECT_THAT(warning(2), HasSubstr("only two"));
  EXPECT_THAT(warning(3), Not(HasSubstr("norm_statistics")));
  EXPECT_THAT(warning(1, {"--set", "evaluate.norm_statistics=support"}),
              Not(HasSubstr("statistics")));
}

TEST_F(AdaptFiles, FaultsAreOneLineAndStatus2) {
  write_rows("x.npz", numbers<float>({4, 3}, 1), {0, 0, 1, 1});
  import_and_train({"arrays", "x.npz", "--fractions", "1,0,0"});
  const std::string good = "x0,x1,x2,label\n1,2,3,a\n1,2,4,b\n";
  struct Bad {
    std::string text, expected;
    std::vector<std::string> options;
  };
  for (const Bad& bad : std::vector<Bad>{
           {"x0,x1,x2,label\n1,2,3,a\n1,2,\xff,b\n", "line 3: a field is not UTF-8", {}},
           {std::string("x0,x1,x2,label\n1,2,\0,a\n", 23), "binary data", {}},
           {"x0,x1,x2,label\n1,2,\"3,a\n", "a quote is opened", {}},
           {"x0,x1,x2,label\n1,2,3\n", "3 fields; expected 4", {}},
           {"x0,x1,x2,label\n1,2,inf,a\n1,2,3,b\n", "expected a finite number", {}},
           {"x0,x1,x2,label\n1,2,1e60,a\n1,2,3,b\n", "expected a finite number", {}},
           {"x0,x1,x2,label\n1,2,\"1,5\",a\n1,2,3,b\n", "'1,5'; expected a number", {}},
           {"x0,x1,x2,label\n1,2,NA,a\n1,2,3,b\n", "--missing", {}},
           {"x0,x1,x2,label\n1,2,NA,a\n1,2,3,b\n", "not standardised", {"--missing", "mean"}},
           {good, "--delimiter ;;: expected one character", {"--delimiter", ";;"}},
           {good, "--decimal x: expected", {"--decimal", "x"}},
           {good, "--thousands 12: expected", {"--thousands", "12"}},
           {good, "two different", {"--thousands", "."}},
           {good, "--layout", {"--layout", "hwc"}},
           {good, "--missing", {"--missing", "guess"}}}) {
    write_text(folder_ / "s.csv", bad.text);
    write_text(folder_ / "q.csv", "x0,x1,x2\n1,2,3\n");
    std::vector<std::string> arguments = {"adapt", "run", "--support", "s.csv", "--query", "q.csv"};
    arguments.insert(arguments.end(), bad.options.begin(), bad.options.end());
    const Outcome outcome = kshot(arguments);
    EXPECT_EQ(outcome.status, 2) << outcome.error;
    EXPECT_THAT(outcome.error, HasSubstr(bad.expected));
    EXPECT_EQ(std::ranges::count(outcome.error, '\n'), 1) << outcome.error;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "adapted"));
  }
}

}  // namespace
}  // namespace kshot::cli
