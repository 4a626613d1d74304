// `kshot verify`: a case whose gradient is computed here in closed form, the shared cases, and
// cases that cannot be read.
#include "engine/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <numbers>
#include <optional>

#include "io/atomic_file.h"
#include "kshot/error.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using io::NpyArray;
using test::error_text;
using test::TempFolder;
using testing::HasSubstr;
using Arrays = std::map<std::string, NpyArray>;

NpyArray array(std::vector<double> values, std::vector<std::size_t> shape) {
  return NpyArray::from(std::span<const double>(values), std::move(shape));
}

constexpr double rate = 0.07;

/// Two tasks of a line y = w x + b with three support and two query points per task.
Arrays line_inputs() {
  return {{"theta.layers.0.weight", array({0.4}, {1, 1})},
          {"theta.layers.0.bias", array({-0.3}, {1})},
          {"support_x", array({1.0, -0.5, 2.0, 0.3, 0.9, -1.2}, {2, 3, 1})},
          {"support_y", array({0.2, 1.1, -0.7, 2.0, 0.1, 0.4}, {2, 3, 1})},
          {"query_x", array({-1.0, 0.6, 1.7, 0.2}, {2, 2, 1})},
          {"query_y", array({0.5, 0.3, -0.9, 1.3}, {2, 2, 1})}};
}

/// The expected results of MAML on a quadratic loss in closed form. With L(u) = u'Au/2 - c'u +
/// const and u' = u - rate (A u - c), the meta-gradient is (1 - rate A_support) (A_query u' -
/// c_query). With `log_noise` the loss is gaussian_nll with this noise: kappa = exp(-2 log_noise) /
/// 2 times the quadratic loss, plus log_noise + log(2 pi) / 2. The gradient by log_noise is then 1
/// - 2 kappa L(u') directly, plus 2 rate kappa (A u - c)_support times the query loss's gradient
/// through the step.
Arrays line_expected(std::optional<double> log_noise = {}) {
  const double kappa = log_noise ? 0.5 * std::exp(-2.0 * *log_noise) : 1.0;
  double noise_gradient = 0.0;
  const Arrays in = line_inputs();
  const std::array<double, 2> u = {0.4, -0.3};
  std::array<double, 2> gradient = {0.0, 0.0};
  std::vector<double> losses, outputs;
  struct Quadratic {
    double a[2][2] = {{0.0, 0.0}, {0.0, 0.0}};
    double c[2] = {0.0, 0.0};
  };
  const auto quadratic = [&](const char* set, std::size_t task, std::size_t rows) {
    const std::vector<double> x = in.at(std::string(set) + "_x").to_f64();
    const std::vector<double> y = in.at(std::string(set) + "_y").to_f64();
    Quadratic q;
    for (std::size_t i = task * rows; i < (task + 1) * rows; ++i) {
      const double z[2] = {x[i], 1.0};
      for (int r = 0; r < 2; ++r) {
        for (int s = 0; s < 2; ++s) q.a[r][s] += 2.0 * z[r] * z[s] / static_cast<double>(rows);
        q.c[r] += 2.0 * z[r] * y[i] / static_cast<double>(rows);
      }
    }
    return q;
  };
  for (std::size_t task = 0; task < 2; ++task) {
    const Quadratic s = quadratic("support", task, 3), q = quadratic("query", task, 2);
    double adapted[2], g[2];
    double inner[2];
    for (int r = 0; r < 2; ++r) {
      inner[r] = kappa * (s.a[r][0] * u[0] + s.a[r][1] * u[1] - s.c[r]);
      adapted[r] = u[static_cast<std::size_t>(r)] - rate * inner[r];
    }
    for (int r = 0; r < 2; ++r) {
      g[r] = kappa * (q.a[r][0] * adapted[0] + q.a[r][1] * adapted[1] - q.c[r]);
    }
    for (int r = 0; r < 2; ++r) {
      gradient[static_cast<std::size_t>(r)] +=
          0.5 * (g[r] - rate * kappa * (s.a[r][0] * g[0] + s.a[r][1] * g[1]));
    }
    double loss = 0.0;
    for (std::size_t i = 2 * task; i < 2 * task + 2; ++i) {
      const double o = adapted[0] * in.at("query_x").to_f64()[i] + adapted[1];
      const double d = o - in.at("query_y").to_f64()[i];
      loss += 0.5 * d * d;
      outputs.push_back(o);
    }
    noise_gradient += 0.5 * (1.0 - 2.0 * kappa * loss);
    for (int r = 0; r < 2; ++r) noise_gradient += 0.5 * 2.0 * rate * inner[r] * g[r];
    if (log_noise) loss = kappa * loss + *log_noise + 0.5 * std::log(2.0 * std::numbers::pi);
    losses.push_back(loss);
  }
  Arrays expected = {{"loss", array({0.5 * (losses[0] + losses[1])}, {})},
                     {"task_loss", array(losses, {2})},
                     {"query_output", array(outputs, {2, 2, 1})},
                     {"grad.theta.layers.0.weight", array({gradient[0]}, {1, 1})},
                     {"grad.theta.layers.0.bias", array({gradient[1]}, {1})}};
  if (log_noise) expected.insert({"grad.log_noise", array({noise_gradient}, {1})});
  return expected;
}

class VerifyTest : public testing::Test {
 protected:
  void write(const Arrays& inputs, const Arrays& expected, const std::string& loss = "\"mse\"") {
    io::write_file_atomic(folder_ / "case.toml",
                          "algorithm = \"maml\"\n[network]\ntype = \"linear\"\nlayers = [1, 1]\n"
                          "[inner]\nsteps = 1\nlearning_rate = 0.07\n[loss]\ntype = " +
                              loss + "\n");
    io::write_npz(folder_ / "inputs.npz", inputs);
    if (!expected.empty()) io::write_npz(folder_ / "expected.npz", expected);
  }
  VerifyResult verify(const std::string& device = "reference") const {
    return verify_case(folder_.path(), device, {});
  }
  TempFolder folder_;
};

TEST_F(VerifyTest, GradientsByHand) {
  write(line_inputs(), line_expected());
  for (const char* device : {"reference", "cpu"}) {
    const VerifyResult result = verify(device);
    EXPECT_THAT(result.device, testing::StartsWith(device == std::string("cpu") ? "cpu" : "ref"));
    EXPECT_EQ(result.keys.size(), 5u);
    EXPECT_TRUE(result.within()) << device;
  }
  EXPECT_EQ(verify("reference").tolerance, 1e-9);
  EXPECT_EQ(verify("cpu").tolerance, 1e-4);
}

TEST_F(VerifyTest, LearnedNoiseByHand) {
  Arrays inputs = line_inputs();
  const std::string loss = "\"gaussian_nll\"\nnoise = \"learned\"";
  write(inputs, {}, loss);
  EXPECT_THAT(error_text([&] { verify(); }), HasSubstr("inputs.npz: \"log_noise\" is missing"));
  for (const double log_noise : {-0.4, 0.3}) {
    inputs.insert_or_assign("log_noise", array({log_noise}, {1}));
    write(inputs, line_expected(log_noise), loss);
    for (const char* device : {"reference", "cpu"}) {
      const VerifyResult result = verify(device);
      EXPECT_EQ(result.keys.size(), 6u);
      EXPECT_TRUE(result.within()) << device << ", log_noise " << log_noise;
    }
  }
}

TEST_F(VerifyTest, SeesWrongNumbers) {
  for (const char* key : {"loss", "task_loss", "query_output", "grad.theta.layers.0.bias"}) {
    Arrays expected = line_expected();
    std::vector<double> values = expected.at(key).to_f64();
    values.back() *= 1.0 + 1e-6;
    expected.insert_or_assign(key, array(values, expected.at(key).shape));
    write(line_inputs(), expected);
    const VerifyResult result = verify();
    EXPECT_FALSE(result.within()) << key;
    for (const VerifyKey& k : result.keys) {
      if (k.name != key && !k.name.starts_with("grad.")) {
        EXPECT_LE(k.error, 1e-9) << k.name;
      }
    }
  }
  Arrays expected = line_expected();
  expected.insert_or_assign("loss", array({std::nan("")}, {}));
  write(line_inputs(), expected);
  EXPECT_FALSE(verify().within()) << "NaN is not within anything";
}

TEST_F(VerifyTest, WithoutExpectedValuesItOnlyComputes) {
  write(line_inputs(), {});
  const VerifyResult result = verify();
  EXPECT_TRUE(result.keys.empty());
  EXPECT_TRUE(result.within());
  EXPECT_NEAR(result.values.at("loss").to_f64()[0], line_expected().at("loss").to_f64()[0], 1e-12);
}

TEST_F(VerifyTest, SaysWhatIsWrongWithACase) {
  const auto message = [&](const std::string& key, std::optional<NpyArray> value) {
    Arrays inputs = line_inputs();
    inputs.erase(key);
    if (value) inputs.insert_or_assign(key, *value);
    write(inputs, line_expected());
    return error_text([&] { verify(); });
  };
  EXPECT_THAT(message("query_x", {}), HasSubstr("\"query_x\" is missing"));
  EXPECT_THAT(message("theta.layers.0.bias", {}), HasSubstr("\"theta.layers.0.bias\" is missing"));
  EXPECT_THAT(message("support_x", array({1, 2}, {2, 1, 1})), HasSubstr("support_y"));
  EXPECT_THAT(message("support_x", array({1, 2, 3, 4}, {2, 1, 2})), HasSubstr("(tasks, rows, 1)"));
  EXPECT_THAT(message("support_n", array({3, 4}, {2})), HasSubstr("4 is out of range"));
  EXPECT_THAT(message("support_y", array({0, 0, std::nan(""), 0, 0, 0}, {2, 3, 1})),
              HasSubstr("finite"));
  Arrays expected = line_expected();
  expected.insert_or_assign("grad.alpha.x", array({1}, {1}));
  write(line_inputs(), expected);
  EXPECT_THAT(error_text([&] { verify(); }), HasSubstr("\"grad.alpha.x\" is not a result"));
  EXPECT_THAT(error_text([&] { verify_case(folder_ / "none", "reference", {}); }),
              HasSubstr("case.toml"));
}

TEST_F(VerifyTest, DevicesAndPrecisionsThatDoNotExist) {
  write(line_inputs(), line_expected());
  const auto verify_as = [&](const char* device, backend::Precision precision) {
    return error_text([&] { verify_case(folder_.path(), device, precision); });
  };
  EXPECT_THAT(verify_as("reference", backend::Precision::f32), HasSubstr("computes in f64"));
  EXPECT_THAT(verify_as("cpu", backend::Precision::f64), HasSubstr("computes in f32"));
  EXPECT_EQ(verify_as("cpu", backend::Precision::f32), "(no error)");
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    if (device.usable) continue;
    EXPECT_THROW(verify_case(folder_.path(), device.name, {}), DeviceError) << device.name;
  }
}

class SharedCase : public testing::TestWithParam<const char*> {};

TEST_P(SharedCase, Agrees) {
  const fs::path folder = fs::path(KSHOT_SHARED_DIR) / "cases" / GetParam();
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared cases are not here: " << folder;
  for (const char* device : {"reference", "cpu"}) {
    const VerifyResult result = verify_case(folder, device, {});
    EXPECT_FALSE(result.keys.empty());
    for (const VerifyKey& key : result.keys) {
      EXPECT_LE(key.error, result.tolerance) << device << ": " << key.name;
    }
  }
}

/// The names of the CUDA backends that run here: the emulator, and GPUs.
std::vector<std::string> cuda_devices() {
  std::vector<std::string> names;
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    const bool cuda = device.name == "simt" || device.name.starts_with("cuda");
    if (device.usable && cuda) names.push_back(device.name);
  }
  return names;
}

/// The shared cases on the CUDA backends.
class SharedCaseOnCuda : public testing::TestWithParam<const char*> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SharedCaseOnCuda);

TEST_P(SharedCaseOnCuda, Agrees) {
  const fs::path folder = fs::path(KSHOT_SHARED_DIR) / "cases" / GetParam();
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared cases are not here: " << folder;
  for (const std::string& device : cuda_devices()) {
    for (const backend::Precision precision : {backend::Precision::f32, backend::Precision::f64}) {
      const bool twice = precision == backend::Precision::f64;
      const VerifyResult result = verify_case(folder, device, precision);
      EXPECT_THAT(result.device, testing::StartsWith(device));
      EXPECT_THAT(result.device, HasSubstr(twice ? "double" : "float"));
      EXPECT_EQ(result.tolerance, twice ? 1e-9 : 1e-4);
      EXPECT_FALSE(result.keys.empty());
      for (const VerifyKey& key : result.keys) {
        EXPECT_LE(key.error, result.tolerance) << result.device << ": " << key.name;
      }
    }
  }
}

constexpr const char* shared_cases[] = {"abml_conv4",
                                        "abml_flipout_mlp",
                                        "abml_learned_rates",
                                        "abml_local_mlp",
                                        "abml_mlp_classify_fixed_prior",
                                        "abml_mlp_regression",
                                        "abml_query_only_first_order",
                                        "abml_ragged_all_data",
                                        "hvi_mcallester",
                                        "hvi_mcallester_per_model",
                                        "hvi_vb",
                                        "leo_3way_4shot_one_latent",
                                        "leo_5way_1shot",
                                        "maml_conv4_head_only",
                                        "maml_conv4_pool_nonorm",
                                        "maml_conv4_stride_bn",
                                        "maml_mlp_first_order",
                                        "maml_mlp_relu_1step",
                                        "maml_mlp_tanh_5step",
                                        "maml_ragged_regression",
                                        "maml_sequential",
                                        "metasgd_layer_rates_per_step",
                                        "metasgd_mlp"};
// The shared cases of closed-form heads.
constexpr const char* head_cases[] = {"alpaca_mlp",
                                      "bayes_protonet_ways_differ",
                                      "dkt_rbf_marginal",
                                      "protonet_conv4_cosine",
                                      "protonet_mlp_euclidean",
                                      "r2d2_mlp_classify",
                                      "r2d2_regression_ragged"};

/// The shared cases of closed-form heads, on the backends that have the operations of these heads.
class SharedHeadCase : public testing::TestWithParam<const char*> {};

TEST_P(SharedHeadCase, Agrees) {
  const fs::path folder = fs::path(KSHOT_SHARED_DIR) / "cases" / GetParam();
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared cases are not here: " << folder;
  const VerifyResult result = verify_case(folder, "reference", {});
  EXPECT_FALSE(result.keys.empty());
  for (const VerifyKey& key : result.keys) {
    EXPECT_LE(key.error, result.tolerance) << key.name;
  }
}

std::string name_of(const testing::TestParamInfo<const char*>& info) {
  return info.param;
}
/// No cases where no CUDA backend is: a skipped test means that something is missing.
std::vector<const char*> cases_on_cuda() {
  if (cuda_devices().empty()) return {};
  return {std::begin(shared_cases), std::end(shared_cases)};
}
INSTANTIATE_TEST_SUITE_P(AllItTakes, SharedCaseOnCuda, testing::ValuesIn(cases_on_cuda()), name_of);
INSTANTIATE_TEST_SUITE_P(All, SharedHeadCase, testing::ValuesIn(head_cases), name_of);
INSTANTIATE_TEST_SUITE_P(All, SharedCase, testing::ValuesIn(shared_cases), name_of);

}  // namespace
}  // namespace kshot
