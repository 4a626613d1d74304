#include "io/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "data/files.h"
#include "support/error_text.h"

namespace kshot::io {
namespace {

using test::error_text;
using test::jpeg_bytes;
using test::Picture;
using test::png1_bytes;
using test::png_bytes;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Image, PngOfEveryKind) {
  const Image grey = decode_image(png_bytes({2, 2, 1, {0, 100, 200, 255}}), 1, "g");
  EXPECT_THAT(grey.pixels, ElementsAre(0, 100, 200, 255));
  const Image bits = decode_image(png1_bytes({2, 3, 1, {0, 255, 0, 255, 255, 0}}), 1, "b");
  EXPECT_THAT(bits.pixels, ElementsAre(0, 255, 0, 255, 255, 0));
  // RGB becomes planar
  const Image rgb = decode_image(png_bytes({1, 2, 3, {10, 20, 30, 40, 50, 60}}), 3, "c");
  EXPECT_THAT(rgb.pixels, ElementsAre(10, 40, 20, 50, 30, 60));
  const Image spread = decode_image(png_bytes({1, 2, 1, {7, 9}}), 3, "s");
  EXPECT_THAT(spread.pixels, ElementsAre(7, 9, 7, 9, 7, 9));
  // what is transparent lies on white
  const Image clear = decode_image(png_bytes({1, 2, 4, {0, 0, 0, 0, 0, 0, 0, 255}}), 1, "t");
  EXPECT_THAT(clear.pixels, ElementsAre(255, 0));
}

TEST(Image, JpegGreyAndColour) {
  const Image grey = decode_image(jpeg_bytes(test::plain(8, 8, 1, 77)), 1, "g");
  EXPECT_THAT(grey.pixels, Each(77));
  Picture red = test::plain(16, 16, 3, 0);
  for (std::size_t p = 0; p < 256; ++p) red.pixels[3 * p] = 255;
  const Image rgb = decode_image(jpeg_bytes(red), 3, "r");
  ASSERT_EQ(rgb.pixels.size(), 768u);
  EXPECT_NEAR(rgb.pixels[0], 255, 2);
  EXPECT_NEAR(rgb.pixels[256], 0, 2);
  EXPECT_NEAR(rgb.pixels[512], 0, 2);
}

TEST(Image, DamageIsAnErrorThatNamesTheFile) {
  Picture noise = test::plain(32, 32, 1, 0);
  std::uint32_t state = 1;
  for (auto& pixel : noise.pixels) {
    state = state * 1664525u + 1013904223u;
    pixel = static_cast<std::uint8_t>(state >> 24);
  }
  const std::string png = png_bytes(noise);
  const std::string jpeg = jpeg_bytes(noise);
  for (const double part : {0.1, 0.5, 0.9}) {
    const auto cut = [&](const std::string& bytes) {
      return bytes.substr(0, static_cast<std::size_t>(part * static_cast<double>(bytes.size())));
    };
    EXPECT_THAT(error_text([&] { decode_image(cut(png), 1, "a/b.png"); }),
                AllOf(HasSubstr("a/b.png"), HasSubstr("PNG")));
    EXPECT_THAT(error_text([&] { decode_image(cut(jpeg), 1, "a/b.jpg"); }),
                AllOf(HasSubstr("a/b.jpg"), HasSubstr("JPEG")));
  }
  EXPECT_THAT(error_text([&] { decode_image("GIF89a", 1, "c.png"); }),
              HasSubstr("c.png: expected a PNG or JPEG image"));
  EXPECT_THAT(error_text([&] { decode_image("", 1, "d.png"); }), HasSubstr("d.png"));
}

TEST(Image, ShrinkingAveragesAreas) {
  Image image{1, 4, 4, {}};
  for (int i = 0; i < 16; ++i) image.pixels.push_back(static_cast<std::uint8_t>(i * 10));
  // means of the four 2 x 2 blocks
  EXPECT_THAT(resize_image(image, 2, 2).pixels, ElementsAre(25, 45, 105, 125));
  // 105 -> 28, Omniglot's ratio: the mean stays, and a constant stays constant
  Image stripes{1, 105, 105, {}};
  for (int i = 0; i < 105 * 105; ++i) {
    stripes.pixels.push_back((i % 105) / 15 % 2 == 0 ? 255 : 0);
  }
  const Image small = resize_image(stripes, 28, 28);
  const auto mean = [](const Image& of) {
    return std::accumulate(of.pixels.begin(), of.pixels.end(), 0.0) /
           static_cast<double>(of.pixels.size());
  };
  EXPECT_NEAR(mean(small), mean(stripes), 1.5);
  const Image flat = resize_image({3, 10, 12, std::vector<std::uint8_t>(360, 99)}, 17, 5);
  EXPECT_EQ(flat.pixels.size(), 3u * 17u * 5u);
  EXPECT_THAT(flat.pixels, Each(99));
}

TEST(Image, RotationIsCounterClockwiseAndLossless) {
  const Image image{2, 2, 3, {1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16}};
  const Image once = rotate_image(image, 1);
  EXPECT_EQ(once.height, 3);
  EXPECT_EQ(once.width, 2);
  EXPECT_THAT(once.pixels, ElementsAre(3, 6, 2, 5, 1, 4, 13, 16, 12, 15, 11, 14));
  EXPECT_THAT(rotate_image(image, 2).pixels, ElementsAre(6, 5, 4, 3, 2, 1, 16, 15, 14, 13, 12, 11));
  EXPECT_EQ(rotate_image(once, 3).pixels, image.pixels);
  EXPECT_EQ(rotate_image(image, 0).pixels, image.pixels);
}

TEST(Image, CropTakesTheCentre) {
  Image wide{1, 2, 6, {}};
  for (std::uint8_t i = 0; i < 12; ++i) wide.pixels.push_back(i);
  EXPECT_THAT(crop_image(wide, 10, 10).pixels, ElementsAre(2, 3, 8, 9));
  EXPECT_THAT(crop_image(wide, 1, 6).pixels.size(), 6u);
  EXPECT_EQ(crop_image(wide, 4, 12).pixels, wide.pixels);
}

}  // namespace
}  // namespace kshot::io
