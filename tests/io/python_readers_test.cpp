// Files of kshot are read by the programs of its users, and the other way round: the Python
// packages numpy, safetensors, tensorboard and pillow (support/python.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/atomic_file.h"
#include "io/image.h"
#include "io/npy.h"
#include "io/safetensors.h"
#include "io/tfevents.h"
#include "kshot/error.h"
#include "support/error_text.h"
#include "support/python.h"
#include "support/temp_folder.h"

namespace kshot::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::error_text;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PythonReaders : public ::testing::Test {
 protected:
  json run(const std::string& script) { return test::run_python(folder_, script); }

  test::TempFolder folder_;
};

// Doubles without a short decimal form.
std::vector<double> awkward() {
  return {1.0 / 3.0, -0.0, 1e-310, 1.7976931348623157e308, 2, 3};
}

std::map<std::string, Tensor> arrays() {
  std::map<std::string, Tensor> entries;
  entries["double"] = Tensor::from(awkward(), {2, 3});
  entries["single"] = Tensor::from(std::vector<float>{0.1f, -2.5f}, {2, 1, 1});
  entries["long"] = Tensor::from(std::vector<std::int64_t>{-9007199254740993, 1}, {2});
  entries["int"] = Tensor::from(std::vector<std::int32_t>{-7}, {});
  entries["byte"] = Tensor::from(std::vector<std::uint8_t>{0, 255}, {1, 2});
  entries["empty"] = Tensor::from(std::vector<float>{}, {0, 4});
  return entries;
}

// Checks types, shapes and values as Python sees them. Doubles are in hexadecimal.
void expect_arrays(const json& found) {
  for (const auto& [name, tensor] : arrays()) {
    const json& entry = found.at(name);
    EXPECT_EQ(entry.at("dtype"), dtype_name(tensor.dtype)) << name;
    EXPECT_EQ(entry.at("shape").get<std::vector<std::size_t>>(), tensor.shape) << name;
    std::vector<double> values;
    for (const json& text : entry.at("values")) {
      values.push_back(std::strtod(text.get<std::string>().c_str(), nullptr));
    }
    const std::vector<double> expected = tensor.to_f64();
    ASSERT_EQ(values.size(), expected.size()) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(values[i], expected[i]) << name << i;
      EXPECT_EQ(std::signbit(values[i]), std::signbit(expected[i])) << name << i;
    }
  }
  EXPECT_EQ(found.size(), arrays().size());
}

const char kDescribe[] = R"(
import json
def describe(arrays):
    return {k: {"dtype": str(a.dtype), "shape": list(a.shape),
                "values": [float(v).hex() for v in a.ravel()]} for k, a in arrays.items()}
)";

// The layout of the embeddings that were published with LEO (protocol 2, as written by Python 2).
const char kPickles[] = R"(
import json, os, pickle, subprocess, sys
import numpy as np
TOOL = os.environ["KSHOT_TOOL"]
def write(name, data):
    with open(name + "_embeddings.pkl", "wb") as file:
        pickle.dump(data, file, protocol=2)
row = 0
for split, classes in (("train", ["n01", "n02"]), ("val", ["n03"]), ("test", ["n04"])):
    keys, x = [], []
    for name in classes:
        for i in range(3):
            keys.append(f"{row}-{name}-{name}_{i}")
            x.append([row, 0.5, -1.0])
            row += 1
    write(split, {"embeddings": np.array(x), "keys": np.array(keys), "labels": np.zeros(len(x))})
def convert():
    done = subprocess.run([sys.executable, TOOL, ".", "-o", "out"], capture_output=True, text=True)
    return [done.returncode, done.stderr.strip()]
result = {"good": convert()}
arrays = np.load("out.npz")
result["x"] = arrays["x"].tolist()
result["y"] = arrays["y"].tolist()
result["tsv"] = open("out.tsv").read()
class Command:
    def __reduce__(self):
        return (os.system, ("touch ran",))
write("val", {"embeddings": Command(), "keys": []})
result["unsafe"] = convert()
result["ran"] = os.path.exists("ran")
open("val_embeddings.pkl", "w").write("no pickle")
result["no pickle"] = convert()
write("val", {"embeddings": np.zeros((1, 4)), "keys": ["0-n03-n03_0"]})
result["other size"] = convert()
print(json.dumps(result))
)";

TEST_F(PythonReaders, LeoEmbeddingsBecomeArrays) {
  KSHOT_NEEDS("numpy");
  ::setenv("KSHOT_TOOL", KSHOT_SOURCE_DIR "/tools/leo_embeddings.py", 1);
  const json found = run(kPickles);
  ASSERT_EQ(found.at("good").at(0), 0) << found.at("good").at(1);
  EXPECT_EQ(found.at("y"), (std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3}));
  ASSERT_EQ(found.at("x").size(), 12u);
  EXPECT_EQ(found.at("x").at(7), (std::vector<double>{7, 0.5, -1}));
  EXPECT_EQ(found.at("tsv"),
            "index\tclass\tsplit\n0\tn01\ttrain\n1\tn02\ttrain\n2\tn03\tval\n3\tn04\ttest\n");
  const auto expect_error = [&](const char* what, const char* text) {
    EXPECT_EQ(found.at(what).at(0), 1) << what;
    const std::string error = found.at(what).at(1);
    EXPECT_THAT(error, HasSubstr("val_embeddings.pkl: ")) << what;
    EXPECT_THAT(error, HasSubstr(text)) << what;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  };
  expect_error("unsafe", "expected arrays and strings alone");
  EXPECT_EQ(found.at("ran"), false) << "a pickle's command was run";
  expect_error("no pickle", "not a pickle of arrays");
  expect_error("other size", "4 features, expected 3 as the other splits");
}

TEST_F(PythonReaders, NumpyReadsOurNpz) {
  KSHOT_NEEDS("numpy");
  for (const Compression compression : {Compression::stored, Compression::deflated}) {
    write_npz(folder_ / "x.npz", arrays(), compression);
    expect_arrays(run(std::string(kDescribe) + R"(
import numpy
with numpy.load("x.npz") as archive:
    print(json.dumps(describe({k: archive[k] for k in archive.files})))
)"));
  }
}

TEST_F(PythonReaders, NumpyReadsOurNpy) {
  KSHOT_NEEDS("numpy");
  for (const auto& [name, tensor] : arrays()) write_npy(folder_ / (name + ".npy"), tensor);
  expect_arrays(run(std::string(kDescribe) + R"(
import glob, numpy
print(json.dumps(describe({f[:-4]: numpy.load(f) for f in glob.glob("*.npy")})))
)"));
}

TEST_F(PythonReaders, WeReadNumpys) {
  KSHOT_NEEDS("numpy");
  // There is an array of every type, each with its values as text, in both orders, stored and
  // deflated.
  const json expected = run(R"(
import json, numpy
rng = numpy.random.default_rng(0)
arrays = {}
for t in ["f2", "f4", "f8"]:
    arrays[t] = rng.standard_normal((3, 4, 2)).astype(t)
for t in ["i1", "u1", "i2", "u2", "i4", "u4", "i8"]:
    info = numpy.iinfo(t)
    arrays[t] = rng.integers(info.min, info.max, (5, 3), dtype=t, endpoint=True)
arrays["bool"] = rng.random((7,)) < 0.5
arrays["scalar"] = numpy.float64(0.1)
arrays["empty"] = numpy.zeros((0, 3))
fortran = {k: numpy.asarray(a, order="F") for k, a in arrays.items()}
numpy.savez("stored.npz", **arrays)
numpy.savez_compressed("deflated.npz", **arrays)
numpy.savez("fortran.npz", **fortran)
with open("v2.npy", "wb") as f:
    numpy.lib.format.write_array(f, arrays["f4"], version=(2, 0))
with open("v3.npy", "wb") as f:
    numpy.lib.format.write_array(f, arrays["f4"], version=(3, 0))
numpy.savez("big.npz", x=numpy.arange(3, dtype=">f8"))
numpy.savez("object.npz", x=numpy.array([{}, "a"], dtype=object))
numpy.savez("text.npz", x=numpy.array(["ab", "c"]))
numpy.savez("struct.npz", x=numpy.zeros(2, dtype=[("a", "f4"), ("b", "i4")]))
print(json.dumps({k: {"shape": list(numpy.shape(a)),
                      "values": [float(v).hex() for v in numpy.ravel(a)]}
                  for k, a in arrays.items()}))
)");
  const auto expect_equal = [&](const std::string& name, const NpyArray& array) {
    EXPECT_EQ(expected.at(name).at("shape").get<std::vector<std::size_t>>(), array.shape) << name;
    const std::vector<double> values = array.to_f64();
    ASSERT_EQ(expected.at(name).at("values").size(), values.size()) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::string text = expected.at(name).at("values")[i];
      EXPECT_EQ(values[i], std::strtod(text.c_str(), nullptr)) << array.origin << " " << i;
    }
  };
  for (const char* file : {"stored.npz", "deflated.npz", "fortran.npz"}) {
    const auto entries = read_npz(folder_ / file);
    EXPECT_EQ(entries.size(), expected.size());
    for (const auto& [name, array] : entries) expect_equal(name, array);
  }
  expect_equal("f4", read_npy(folder_ / "v2.npy"));
  expect_equal("f4", read_npy(folder_ / "v3.npy"));
  const auto error_of = [&](const char* file) {
    return error_text([&] { read_npz(folder_ / file); });
  };
  EXPECT_THAT(read_npz(folder_ / "big.npz").at("x").to_f64(), testing::ElementsAre(0, 1, 2));
  EXPECT_THAT(error_of("object.npz"), HasSubstr("object.npz: x: dtype '|O' is not supported"));
  EXPECT_THAT(error_of("text.npz"), HasSubstr("text.npz: x: dtype '<U2' is not supported"));
  EXPECT_THAT(error_of("struct.npz"), HasSubstr("struct.npz: x: structured arrays"));
}

// The grey and colour values of pictures of every mode that Pillow writes, compared with Pillow's
// own convert().
TEST_F(PythonReaders, PicturesAreWhatPillowSees) {
  KSHOT_NEEDS("PIL");
  KSHOT_NEEDS("numpy");
  const json files = run(R"(
import json, struct
import numpy
from PIL import Image, ImageOps, PngImagePlugin
rng = numpy.random.default_rng(3)
small = Image.fromarray(rng.integers(0, 256, (6, 5, 4), dtype="u1"), "RGBA")
rgba = small.resize((26, 20), Image.BICUBIC)
rgb = rgba.convert("RGB")
grey = rgb.convert("L")
expected, files = {}, []
def save(name, image, **options):
    image.save(name, **options)
    files.append(name)
    with Image.open(name) as seen:
        seen = ImageOps.exif_transpose(seen)
        if seen.mode.startswith("I"):
            seen = Image.fromarray(((numpy.asarray(seen, "i8") + 128) // 257).astype("u1"), "L")
        expected[name + "/1"] = numpy.asarray(seen.convert("L"))[None]
        expected[name + "/3"] = numpy.asarray(seen.convert("RGB")).transpose(2, 0, 1)
save("bits.png", grey.convert("1"))
save("grey.png", grey)
save("rgb.png", rgb)
save("rgba.png", rgba)
save("la.png", rgba.convert("LA"))
save("palette.png", rgb.quantize(200))
save("palette16.png", rgb.quantize(16), bits=4)
save("palette_clear.png", rgb.quantize(50), transparency=7)
save("grey_clear.png", grey, transparency=128)
save("rgb_clear.png", rgb, transparency=(1, 2, 3))
save("wide.png", Image.fromarray(rng.integers(0, 65536, (9, 7), dtype="u2")))
gamma = PngImagePlugin.PngInfo()
gamma.add(b"gAMA", struct.pack(">I", 100000))
save("gamma.png", rgb, pnginfo=gamma)
save("grey.jpg", grey, quality=90)
save("rgb.jpg", rgb, quality=90)
save("full.jpg", rgb, quality=95, subsampling=0)
save("progressive.jpg", rgb, quality=80, progressive=True)
save("cmyk.jpg", rgb.convert("CMYK"), quality=95)
for turn in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = turn
    save("turn%d.jpg" % turn, rgb, quality=95, exif=exif)
    save("turn%d.png" % turn, rgb, exif=exif)
numpy.savez("expected.npz", **expected)
print(json.dumps(files))
)");
  const auto expected = read_npz(folder_ / "expected.npz");
  ASSERT_EQ(files.size(), 33u);
  for (const std::string file : files) {
    for (const int channels : {1, 3}) {
      const Image image = read_image(folder_ / file, channels);
      const Tensor& want = expected.at(file + "/" + std::to_string(channels));
      const auto side = [](int n) { return static_cast<std::size_t>(n); };
      ASSERT_THAT(want.shape, ElementsAre(side(channels), side(image.height), side(image.width)))
          << file;
      const std::vector<std::int64_t> values = want.to_i64();
      std::int64_t worst = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        worst = std::max(worst, std::abs(values[i] - image.pixels[i]));
      }
      EXPECT_LE(worst, 1) << file << " to " << channels << " channels";
    }
  }
}

TEST_F(PythonReaders, SafetensorsReadsOurs) {
  KSHOT_NEEDS("safetensors.numpy");
  SafeTensors content;
  content.tensors = arrays();
  content.metadata = {{"config", "seed = 1\n# \xc3\xa9 \"quoted\"\n"}, {"step", "12"}};
  write_safetensors(folder_ / "x.safetensors", content);
  const json found = run(std::string(kDescribe) + R"(
import safetensors, safetensors.numpy
with safetensors.safe_open("x.safetensors", "numpy") as f:
    metadata = f.metadata()
print(json.dumps([describe(safetensors.numpy.load_file("x.safetensors")), metadata]))
)");
  expect_arrays(found.at(0));
  EXPECT_EQ((found.at(1).get<std::map<std::string, std::string>>()), content.metadata);
}

TEST_F(PythonReaders, WeReadSafetensors) {
  KSHOT_NEEDS("safetensors.numpy");
  run(R"(
import numpy, safetensors.numpy
safetensors.numpy.save_file(
    {"w": numpy.arange(6, dtype="f4").reshape(2, 3) / 3, "n": numpy.array([-5], "i8"),
     "b": numpy.array([True, False, True]), "h": numpy.array([0.1], "f2")},
    "x.safetensors", metadata={"made": "by python"})
print("null")
)");
  const SafeTensors content = read_safetensors(folder_ / "x.safetensors");
  EXPECT_EQ(content.tensors.size(), 4u);
  EXPECT_THAT(content.tensors.at("w").shape, ElementsAre(2, 3));
  EXPECT_THAT(content.tensors.at("w").to_f32(),
              ElementsAre(0.0f, 1.0f / 3, 2.0f / 3, 1.0f, 4.0f / 3, 5.0f / 3));
  EXPECT_THAT(content.tensors.at("n").to_i64(), ElementsAre(-5));
  EXPECT_THAT(content.tensors.at("b").to_i64(), ElementsAre(1, 0, 1));
  EXPECT_THAT(content.tensors.at("h").to_f64(), ElementsAre(0.0999755859375));
  EXPECT_EQ(content.metadata.at("made"), "by python");
}

// A run of steps 0 to 9 is stopped, resumed at 6 and continued to 14. TensorBoard shows each step
// once, with the later value. The test uses both of its readers: of the scalars in the files, and
// of the tensors into which its server converts them.
TEST_F(PythonReaders, TensorboardReadsOurEvents) {
  KSHOT_NEEDS("tensorboard.backend.event_processing.plugin_event_accumulator");
  {
    EventWriter writer(folder_ / "events");
    for (int step = 0; step < 10; ++step) {
      writer.scalar("train/loss", step, 1.0 / (1 + step), 1700000000.25 + step);
      writer.scalar("validation/accuracy", step, std::nan(""), 1700000000.5 + step);
    }
  }
  {
    EventWriter writer(folder_ / "events", 6);
    for (int step = 6; step < 15; ++step) {
      writer.scalar("train/loss", step, -1.0 / (1 + step), 1800000000.25 + step);
    }
  }
  const json found = run(R"(
import json
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.util import tensor_util
plain = event_accumulator.EventAccumulator("events")
plain.Reload()
server = plugin_event_accumulator.EventAccumulator("events")
server.Reload()
print(json.dumps({
    "tags": plain.Tags()["scalars"],
    "plain": [[e.wall_time, e.step, e.value] for e in plain.Scalars("train/loss")],
    "server": [[e.wall_time, e.step, float(tensor_util.make_ndarray(e.tensor_proto))]
               for e in server.Tensors("train/loss")],
    "nan": [str(e.value) for e in plain.Scalars("validation/accuracy")]}))
)");
  EXPECT_EQ(found.at("tags").get<std::vector<std::string>>(),
            (std::vector<std::string>{"train/loss", "validation/accuracy"}));
  EXPECT_EQ(found.at("nan").get<std::vector<std::string>>(), std::vector<std::string>(6, "nan"));
  for (const char* reader : {"plain", "server"}) {
    const json& points = found.at(reader);
    ASSERT_EQ(points.size(), 15u) << reader;
    for (int step = 0; step < 15; ++step) {
      const bool resumed = step >= 6;
      const json& point = points[static_cast<std::size_t>(step)];
      EXPECT_EQ(point[0].get<double>(), (resumed ? 1800000000.25 : 1700000000.25) + step);
      EXPECT_EQ(point[1].get<int>(), step);
      EXPECT_EQ(point[2].get<float>(), static_cast<float>((resumed ? -1.0 : 1.0) / (1 + step)));
    }
  }
}

}  // namespace
}  // namespace kshot::io
