// The batches that a wave accepts. Sizes, numbers of rows and labels are checked in one place
// before anything is computed, on every backend and for every layout of a backend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "support/backend_problems.h"
#include "support/error_text.h"

namespace kshot::testing {
namespace {

using backend::Set;
using ::testing::HasSubstr;

constexpr std::int32_t lowest = std::numeric_limits<std::int32_t>::min();
constexpr std::int32_t highest = std::numeric_limits<std::int32_t>::max();
// `bad` is the task that the tests spoil.
constexpr int tasks = 5, outputs = 3, bad = 3;

/// Networks, one for each layout of the CPU backend.
struct RowLayout {
  std::string name;
  std::shared_ptr<const Network> network;
  bool generated = false;
};
std::vector<RowLayout> row_layouts() {
  LayerSpec head = linear_layer(outputs);
  head.bias = false;
  const FeatureShape vector{4, 1, 1, false};
  return {
      {"lanes", std::make_shared<const Network>(Network::mlp({4, 6, outputs}, LayerType::relu))},
      {"single",
       std::make_shared<const Network>(
           vector, std::vector<LayerSpec>{layer(LayerType::norm), linear_layer(outputs)})},
      {"head", std::make_shared<const Network>(vector, std::vector<LayerSpec>{head}), true}};
}

/// A change to a batch, and the message of the error that it must cause.
struct Fault {
  std::string name;
  std::function<void(TaskBatch&)> spoil;
  std::string message;
};

std::vector<Fault> label_faults() {
  std::vector<Fault> faults;
  for (const std::int32_t label : {-1, outputs, lowest, highest}) {
    const std::string text =
        "label " + std::to_string(label) + ", expected a class index from 0 to 2";
    faults.push_back({"support label " + std::to_string(label),
                      [label](TaskBatch& b) { b.support_label[bad * 5 + 1] = label; },
                      "task 103, support row 1: " + text});
    faults.push_back({"query label " + std::to_string(label),
                      [label](TaskBatch& b) { b.query_label[bad * 6 + 2] = label; },
                      "task 103, query row 2: " + text});
  }
  return faults;
}

std::vector<Fault> size_faults() {
  std::vector<Fault> faults;
  for (const std::int32_t n : {-1, 6, lowest, highest}) {
    faults.push_back({"support rows", [n](TaskBatch& b) { b.support_n[bad] = n; },
                      "task 103: " + std::to_string(n) + " support rows, expected 0 to 5"});
  }
  for (const std::int32_t n : {-1, 7, lowest, highest}) {
    faults.push_back({"query rows", [n](TaskBatch& b) { b.query_n[bad] = n; },
                      "task 103: " + std::to_string(n) + " query rows, expected 0 to 6"});
  }
  const auto shorter = [&faults](const std::string& what, auto member, auto member64) {
    faults.push_back(
        {what,
         [=](TaskBatch& b) { b.is_double() ? (b.*member64).pop_back() : (b.*member).pop_back(); },
         what + ", expected"});
  };
  shorter("support features", &TaskBatch::support_x, &TaskBatch::support_x64);
  shorter("query features", &TaskBatch::query_x, &TaskBatch::query_x64);
  faults.push_back({"counts", [](TaskBatch& b) { b.support_n.pop_back(); }, "support row counts"});
  faults.push_back({"counts", [](TaskBatch& b) { b.query_n.push_back(1); }, "query row counts"});
  faults.push_back({"counts", [](TaskBatch& b) { b.query_n.clear(); }, "0 query row counts"});
  return faults;
}

class TaskRowsTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<backend::Backend> backend_ = open_backend(GetParam());

  std::unique_ptr<backend::Wave> open(const RowLayout& layout, backend::Loss loss = {}) {
    return backend_->open(layout.network, loss, {5, 6, false, layout.generated});
  }
  /// Loads all tasks, numbered from 100.
  void load(backend::Wave& wave, const TaskBatch& batch) {
    for (int first = 0; first < tasks; first += wave.capacity()) {
      wave.load(batch, first, std::min(wave.capacity(), tasks - first),
                static_cast<std::uint32_t>(100 + first));
    }
  }
  void expect_refused(backend::Wave& wave, const TaskBatch& good,
                      const std::vector<Fault>& faults) {
    for (const Fault& fault : faults) {
      SCOPED_TRACE(fault.name);
      TaskBatch batch = good;
      fault.spoil(batch);
      EXPECT_THAT(test::error_text([&] { load(wave, batch); }), HasSubstr(fault.message));
    }
    EXPECT_NO_THROW(load(wave, good));
  }
};

TEST_P(TaskRowsTest, LabelsAndSizesOutOfRange) {
  for (const RowLayout& layout : row_layouts()) {
    SCOPED_TRACE(layout.name);
    const Problem p = make_problem(layout.network, backend::LossKind::cross_entropy, tasks, 3,
                                   {.least = 5, .support = 5, .query = 6});
    const auto wave = open(layout);
    expect_refused(*wave, p.batch(*backend_), label_faults());
    expect_refused(*wave, p.batch(*backend_), size_faults());
    expect_refused(*wave, p.batch(*backend_),
                   {{"labels", [](TaskBatch& b) { b.support_label.pop_back(); }, "support labels"},
                    {"labels", [](TaskBatch& b) { b.query_label.clear(); }, "0 query labels"}});
  }
}

TEST_P(TaskRowsTest, ValuesOfTheWrongNumber) {
  const RowLayout layout = row_layouts().front();
  const Problem p = make_problem(layout.network, backend::LossKind::mse, tasks, 3,
                                 {.least = 5, .support = 5, .query = 6});
  const auto wave = open(layout, p.loss);
  expect_refused(*wave, p.batch(*backend_), size_faults());
  expect_refused(
      *wave, p.batch(*backend_),
      {{"values",
        [](TaskBatch& b) {
          b.is_double() ? b.support_value64.pop_back() : b.support_value.pop_back();
        },
        "support target values"},
       {"values",
        [](TaskBatch& b) { b.is_double() ? b.query_value64.clear() : b.query_value.clear(); },
        "0 query target values"}});
}

TEST_P(TaskRowsTest, TasksThatTheBatchOrTheWaveDoesNotHave) {
  for (const RowLayout& layout : row_layouts()) {
    SCOPED_TRACE(layout.name);
    const Problem p = make_problem(layout.network, backend::LossKind::cross_entropy, tasks, 3);
    const auto wave = open(layout);
    const int most = wave->capacity();
    struct Range {
      int first, count;
    };
    for (const Range range : {Range{-1, 1},
                              {0, 0},
                              {0, -1},
                              {lowest, 1},
                              {highest, 1},
                              {0, lowest},
                              {0, highest},
                              {0, most + 1},
                              {tasks, 1},
                              {tasks - 1, 2},
                              {1, tasks}}) {
      EXPECT_THAT(
          test::error_text([&] { wave->load(p.batch(*backend_), range.first, range.count, 0); }),
          HasSubstr("task batch: tasks " + std::to_string(range.first) + " to "))
          << range.first << ", " << range.count;
    }
  }
}

TEST_P(TaskRowsTest, ABatchOfAnotherShape) {
  const RowLayout layout = row_layouts().front();
  const auto wave = open(layout);
  TaskShape shape{.input = {4, 1, 1, false},
                  .outputs = outputs,
                  .target = TargetKind::label,
                  .support = 5,
                  .query = 6};
  const auto message = [&](auto change) {
    TaskShape other = shape;
    change(other);
    const TaskBatch batch(other, 2, backend_->precision() == backend::Precision::f64);
    return test::error_text([&] { wave->load(batch, 0, 1, 0); });
  };
  EXPECT_EQ(message([](TaskShape&) {}), "(no error)");
  EXPECT_THAT(message([](TaskShape& s) { s.input.channels = 3; }),
              HasSubstr("rows of 3 inputs and 3 outputs, expected 4 and 3"));
  EXPECT_THAT(message([](TaskShape& s) { s.outputs = 4; }), HasSubstr("4 outputs"));
  EXPECT_THAT(message([](TaskShape& s) { s.target = TargetKind::value; }),
              HasSubstr("targets are values, expected labels"));
  EXPECT_THAT(message([](TaskShape& s) { s.support = 6; }), HasSubstr("up to 6 support"));
  EXPECT_THAT(message([](TaskShape& s) { s.query = 7; }), HasSubstr("7 query rows"));
}

/// A refused batch leaves the wave with the tasks that it already has.
TEST_P(TaskRowsTest, ARefusedBatchChangesNothing) {
  const RowLayout layout = row_layouts().front();
  const Problem p = make_problem(layout.network, backend::LossKind::cross_entropy, 1, 3);
  const auto wave = open(layout);
  wave->load(p.batch(*backend_), 0, 1, 0);
  const backend::Block w = wave->weights(), g = wave->weights();
  wave->upload(w, p.weights.data(), p.width());
  const auto gradient = [&] {
    Numbers values(p.width());
    wave->gradient({Set::support, w, {}}, g, false, {});
    wave->download(g, values);
    return values;
  };
  const Numbers before = gradient();
  TaskBatch spoilt = p.batch(*backend_);
  spoilt.query_label[0] = -1;
  EXPECT_THROW(wave->load(spoilt, 0, 1, 0), Error);
  EXPECT_EQ(gradient(), before);
}

/// A wave notes tasks with numbers that are not finite. It does not look at rows beyond a task's
/// own number, which make_problem fills with NaN.
TEST_P(TaskRowsTest, NumbersThatAreNotFiniteAreNoted) {
  for (const RowLayout& layout : row_layouts()) {
    SCOPED_TRACE(layout.name);
    const Problem p = make_problem(layout.network, backend::LossKind::cross_entropy, tasks, 3,
                                   {.least = 2, .support = 5, .query = 6});
    const auto wave = open(layout);
    const auto finite = [&](const TaskBatch& batch) {
      std::vector<bool> flags;
      for (int first = 0; first < tasks; first += wave->capacity()) {
        wave->load(batch, first, std::min(wave->capacity(), tasks - first), 0);
        for (int t = 0; t < wave->count(); ++t) flags.push_back(wave->rows_finite(t));
      }
      return flags;
    };
    EXPECT_EQ(finite(p.batch(*backend_)), std::vector<bool>(tasks, true));
    for (const double number :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
          -std::numeric_limits<double>::infinity()}) {
      TaskBatch batch = p.batch(*backend_);
      const std::size_t at = bad * 5 * 4 + 7;  // its second row
      batch.is_double() ? batch.support_x64[at] = number
                        : batch.support_x[at] = static_cast<float>(number);
      std::vector<bool> want(tasks, true);
      want[bad] = false;
      EXPECT_EQ(finite(batch), want);
    }
    EXPECT_EQ(finite(p.batch(*backend_)), std::vector<bool>(tasks, true))
        << "the next load is fine";
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, TaskRowsTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
