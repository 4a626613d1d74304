// Checkpoints: damaged files, and files of another run or configuration.
#include "engine/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "engine/engine_cases.h"
#include "io/atomic_file.h"
#include "kshot/trainer.h"
#include "support/error_text.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::put_file;
using test::small_config;
using test::TempFolder;
using testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    Trainer(small_config("maml", {"train.steps=2", "train.validate_every=0"}), options(false))
        .run();
  }
  TrainerOptions options(bool resume) const {
    return {.run_folder = folder_ / "run", .resume = resume, .device = "cpu", .threads = 1};
  }
  fs::path last() const { return folder_ / "run" / "last.safetensors"; }
  /// The error of a resume after the file was changed.
  std::string resume_error(const std::vector<std::string>& overrides = {}) const {
    return error_text([&] { Trainer(small_config("maml", overrides), options(true)); });
  }

  TempFolder folder_;
};

TEST_F(CheckpointTest, CutShortAnywhere) {
  const std::string whole = io::read_file(last());
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    put_file(last(), whole.substr(0, size));
    const std::string message = resume_error();
    EXPECT_THAT(message, HasSubstr("last.safetensors")) << size;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST_F(CheckpointTest, OfAnotherNetworkOrAlgorithm) {
  EXPECT_THAT(resume_error({"network.layers=1,13,1"}),
              HasSubstr("\"theta.layers.0.weight\" has shape (12, 1), expected (13, 1)"));
  EXPECT_THAT(resume_error({"network.layers=1,12,12,1"}), HasSubstr("of another network"));
  EXPECT_THAT(resume_error({"algorithm=abml"}), HasSubstr("no \"mu.layers.0.weight\""));
}

TEST_F(CheckpointTest, NotACheckpoint) {
  io::SafeTensors content = io::read_safetensors(last());
  content.metadata.erase("format");
  io::write_safetensors(last(), content);
  EXPECT_THAT(resume_error(), HasSubstr("not a checkpoint of kshot"));
  content.metadata["format"] = "kshot checkpoint";
  content.metadata["version"] = "99";
  io::write_safetensors(last(), content);
  EXPECT_THAT(resume_error(), HasSubstr("version 99"));
  content.metadata["version"] = "1";
  content.metadata["state"] = "{}";
  io::write_safetensors(last(), content);
  EXPECT_THAT(resume_error(), HasSubstr("damaged"));
}

TEST_F(CheckpointTest, WithANumberThatIsNotFinite) {
  io::SafeTensors content = io::read_safetensors(last());
  std::vector<float> values = content.tensors.at("theta.layers.0.bias").to_f32();
  values[3] = std::numeric_limits<float>::quiet_NaN();
  content.tensors["theta.layers.0.bias"] =
      io::Tensor::from(std::span<const float>(values), {values.size()});
  io::write_safetensors(last(), content);
  EXPECT_THAT(resume_error(),
              HasSubstr("\"theta.layers.0.bias\" holds a number that is not finite"));
}

TEST_F(CheckpointTest, StateSurvivesWritingAndReading) {
  Checkpoint checkpoint = Checkpoint::read(last());
  RunState& s = checkpoint.state;
  s.seconds = 0.1 + 0.2;  // This sum has no short decimal.
  s.validated = true;
  s.best = {.step = 5,
            .metric = "mse",
            .value = 1.0 / 3.0,
            .half_width = 0.01,
            .nll = std::numeric_limits<double>::quiet_NaN(),
            .best = true,
            .seconds = 2.5};
  s.validations_since_best = 4;
  s.window = {.steps = 3, .tasks = 60, .diverged = 1, .loss = 1e300 / 7.0, .task_loss = -1.0 / 9.0};
  checkpoint.source.preprocessing = "{\"a\": 1}";
  checkpoint.write(folder_ / "copy.safetensors");
  const Checkpoint copy = Checkpoint::read(folder_ / "copy.safetensors");
  EXPECT_EQ(copy.state.seconds, s.seconds);
  EXPECT_EQ(copy.state.best.value, s.best.value);
  EXPECT_TRUE(std::isnan(copy.state.best.nll));
  EXPECT_EQ(copy.state.validations_since_best, 4);
  EXPECT_EQ(copy.state.window.loss, s.window.loss);
  EXPECT_EQ(copy.state.window.task_loss, s.window.task_loss);
  EXPECT_EQ(copy.state.window.diverged, 1u);
  EXPECT_EQ(copy.source.preprocessing, checkpoint.source.preprocessing);
  EXPECT_EQ(copy.source.shape.support, 4);
  EXPECT_EQ(copy.config, checkpoint.config);
  EXPECT_EQ(copy.tensors, checkpoint.tensors);
}

TEST_F(CheckpointTest, IsFoundByFolderOrName) {
  EXPECT_EQ(find_checkpoint(folder_ / "run"), last()) << "there was no validation";
  fs::copy_file(last(), folder_ / "run" / "best.safetensors");
  EXPECT_EQ(find_checkpoint(folder_ / "run"), folder_ / "run" / "best.safetensors");
  EXPECT_EQ(find_checkpoint(folder_ / "run", "last"), last());
  EXPECT_EQ(find_checkpoint(last()), last());
  EXPECT_THAT(error_text([&] { find_checkpoint(folder_.path()); }), HasSubstr("no checkpoint"));
}

}  // namespace
}  // namespace kshot
