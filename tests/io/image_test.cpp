// Decoding PNG and JPEG files of every kind, damaged files, and resizing, rotating and cropping.
#include "io/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "data/files.h"
#include "data/image_files.h"
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
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

MATCHER_P(IsNear, value, "within 1 of it") {
  return std::abs(static_cast<int>(arg) - value) <= 1;
}

TEST(Image, PngOfEveryKind) {
  const Image grey = decode_image(png_bytes({2, 2, 1, {0, 100, 200, 255}}), 1, "g");
  EXPECT_THAT(grey.pixels, ElementsAre(0, 100, 200, 255));
  const Image bits = decode_image(png1_bytes({2, 3, 1, {0, 255, 0, 255, 255, 0}}), 1, "b");
  EXPECT_THAT(bits.pixels, ElementsAre(0, 255, 0, 255, 255, 0));
  // RGB pixels become planar.
  const Image rgb = decode_image(png_bytes({1, 2, 3, {10, 20, 30, 40, 50, 60}}), 3, "c");
  EXPECT_THAT(rgb.pixels, ElementsAre(10, 40, 20, 50, 30, 60));
  const Image spread = decode_image(png_bytes({1, 2, 1, {7, 9}}), 3, "s");
  EXPECT_THAT(spread.pixels, ElementsAre(7, 9, 7, 9, 7, 9));
}

// ---- colour: stored values are converted as by Pillow's convert() ----

/// Red, green, blue and a mixture, and below them the values of Pillow's convert("L").
const std::vector<std::uint8_t> colours = {255, 0, 0, 0, 255, 0, 0, 0, 255, 200, 100, 50};
constexpr int greys[] = {76, 150, 29, 124};

TEST(ImageColour, GreysAreTheSameWhateverTheFormat) {
  const std::string png = png_bytes({1, 4, 3, colours});
  EXPECT_THAT(decode_image(png, 1, "p").pixels, ElementsAreArray(greys));
  test::RawPng palette{.height = 1, .width = 4, .colour = PNG_COLOR_TYPE_PALETTE};
  palette.rows = {0, 1, 2, 3};
  palette.palette = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {200, 100, 50}};
  EXPECT_THAT(decode_image(test::raw_png(palette), 1, "i").pixels, ElementsAreArray(greys));
  EXPECT_THAT(decode_image(test::raw_png(palette), 3, "i").pixels,
              ElementsAre(255, 0, 0, 200, 0, 255, 0, 100, 0, 0, 255, 50));
  for (std::size_t c = 0; c < 4; ++c) {
    Picture flat = test::plain(16, 16, 3, 0);
    for (std::size_t i = 0; i < flat.pixels.size(); ++i) flat.pixels[i] = colours[3 * c + i % 3];
    for (const bool progressive : {false, true}) {
      const std::string jpeg = test::raw_jpeg({.picture = flat, .progressive = progressive});
      EXPECT_THAT(decode_image(jpeg, 1, "j").pixels, Each(IsNear(greys[c])));
    }
  }
}

TEST(ImageColour, SixteenBitsAreDividedBy257AndGammaIsNotApplied) {
  test::RawPng wide{.height = 1, .width = 4, .depth = 16};
  for (const int value : {0, 128 * 257, 1000, 65535}) {
    wide.rows.push_back(static_cast<std::uint8_t>(value >> 8));
    wide.rows.push_back(static_cast<std::uint8_t>(value & 255));
  }
  EXPECT_THAT(decode_image(test::raw_png(wide), 1, "w").pixels, ElementsAre(0, 128, 4, 255));
  test::RawPng gamma{.height = 1, .width = 3, .rows = {10, 128, 200}, .gamma = 1.0};
  EXPECT_THAT(decode_image(test::raw_png(gamma), 1, "g").pixels, ElementsAre(10, 128, 200));
  const test::RawPng few{.height = 1, .width = 4, .depth = 2, .rows = {0b00011011}};
  EXPECT_THAT(decode_image(test::raw_png(few), 1, "f").pixels, ElementsAre(0, 85, 170, 255));
}

TEST(ImageColour, AlphaIsDroppedOrLaidOnWhiteOrBlackInStoredValues) {
  const std::string rgba =
      png_bytes({1, 3, 4, {100, 100, 100, 0, 100, 100, 100, 128, 9, 9, 9, 255}});
  const Image dropped = decode_image(rgba, 1, "t");
  EXPECT_THAT(dropped.pixels, ElementsAre(100, 100, 9));
  EXPECT_TRUE(dropped.transparent);
  EXPECT_THAT(decode_image(rgba, 1, "t", Background::white).pixels, ElementsAre(255, 177, 9));
  EXPECT_THAT(decode_image(rgba, 3, "t", Background::black).pixels,
              ElementsAre(0, 50, 9, 0, 50, 9, 0, 50, 9));
  const test::RawPng grey_alpha{
      .height = 1, .width = 2, .colour = PNG_COLOR_TYPE_GRAY_ALPHA, .rows = {40, 0, 50, 255}};
  EXPECT_THAT(decode_image(test::raw_png(grey_alpha), 1, "ga").pixels, ElementsAre(40, 50));
  EXPECT_THAT(decode_image(test::raw_png(grey_alpha), 1, "ga", Background::white).pixels,
              ElementsAre(255, 50));
  const test::RawPng key{.height = 1, .width = 2, .rows = {40, 50}, .transparent_grey = 40};
  EXPECT_THAT(decode_image(test::raw_png(key), 1, "k", Background::white).pixels,
              ElementsAre(255, 50));
  test::RawPng palette{.height = 1, .width = 2, .colour = PNG_COLOR_TYPE_PALETTE};
  palette.rows = {0, 1};
  palette.palette = {{10, 10, 10}, {20, 20, 20}};
  palette.palette_alpha = {0};
  EXPECT_THAT(decode_image(test::raw_png(palette), 1, "p").pixels, ElementsAre(10, 20));
  EXPECT_THAT(decode_image(test::raw_png(palette), 1, "p", Background::white).pixels,
              ElementsAre(255, 20));
  EXPECT_FALSE(decode_image(png_bytes({1, 1, 1, {7}}), 1, "o").transparent);
}

TEST(ImageColour, InterlacedPngsAreTheSame) {
  test::RawPng image{.height = 9, .width = 11};
  for (int i = 0; i < 99; ++i) image.rows.push_back(static_cast<std::uint8_t>(2 * i));
  const Image plain = decode_image(test::raw_png(image), 1, "n");
  image.interlaced = true;
  EXPECT_EQ(decode_image(test::raw_png(image), 1, "i").pixels, plain.pixels);
  EXPECT_EQ(plain.pixels, image.rows);
}

TEST(ImageColour, CmykAndYcckJpegs) {
  // The inks are inverted, as Adobe stores them.
  Picture inks = test::plain(16, 16, 4, 0);
  for (std::size_t p = 0; p < 256; ++p) {
    inks.pixels[4 * p] = 55;
    inks.pixels[4 * p + 1] = 255;
    inks.pixels[4 * p + 2] = 155;
    inks.pixels[4 * p + 3] = 204;
  }
  for (const J_COLOR_SPACE stored : {JCS_CMYK, JCS_YCCK}) {
    const std::string jpeg = test::raw_jpeg({.picture = inks, .space = JCS_CMYK, .stored = stored});
    const Image rgb = decode_image(jpeg, 3, "k");
    ASSERT_EQ(rgb.pixels.size(), 768u);
    EXPECT_NEAR(rgb.pixels[0], 44, 2);  // 204 * 55 / 255
    EXPECT_NEAR(rgb.pixels[256], 204, 2);
    EXPECT_NEAR(rgb.pixels[512], 124, 2);
  }
}

TEST(ImageColour, AJpegOfTwoComponentsIsRefusedInOneLine) {
  const Picture two = test::plain(8, 8, 2, 9);
  const std::string jpeg =
      test::raw_jpeg({.picture = two, .space = JCS_UNKNOWN, .stored = JCS_UNKNOWN});
  EXPECT_THAT(error_text([&] { decode_image(jpeg, 1, "two.jpg"); }),
              AllOf(HasSubstr("two.jpg"), HasSubstr("2 components; expected")));
}

TEST(ImageColour, EveryExifOrientation) {
  // The image is 1 2 3 / 4 5 6. These are the stored pixels for each orientation.
  const std::vector<std::vector<std::uint8_t>> stored = {
      {10, 20, 30, 40, 50, 60}, {30, 20, 10, 60, 50, 40}, {60, 50, 40, 30, 20, 10},
      {40, 50, 60, 10, 20, 30}, {10, 40, 20, 50, 30, 60}, {30, 60, 20, 50, 10, 40},
      {60, 30, 50, 20, 40, 10}, {40, 10, 50, 20, 60, 30}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const auto& pixels = stored[static_cast<std::size_t>(orientation - 1)];
    const bool turned = orientation >= 5;
    for (const bool little : {false, true}) {
      test::RawPng image{.height = turned ? 3 : 2, .width = turned ? 2 : 3, .rows = pixels};
      image.exif = test::exif_block(orientation, little);
      const Image seen = decode_image(test::raw_png(image), 1, "e");
      EXPECT_EQ(seen.height, 2) << orientation;
      EXPECT_EQ(seen.width, 3) << orientation;
      EXPECT_THAT(seen.pixels, ElementsAre(10, 20, 30, 40, 50, 60)) << orientation;
      // In the JPEG, each value is a block of 8 x 8 pixels.
      Picture blocks = test::plain(8 * image.height, 8 * image.width, 1, 0);
      for (int y = 0; y < blocks.height; ++y) {
        for (int x = 0; x < blocks.width; ++x) {
          blocks.pixels[static_cast<std::size_t>(y * blocks.width + x)] =
              pixels[static_cast<std::size_t>(y / 8 * image.width + x / 8)];
        }
      }
      const Image photo = decode_image(test::raw_jpeg({.picture = blocks,
                                                       .space = JCS_GRAYSCALE,
                                                       .stored = JCS_GRAYSCALE,
                                                       .exif = image.exif}),
                                       1, "j");
      ASSERT_EQ(photo.height, 16) << orientation;
      ASSERT_EQ(photo.width, 24) << orientation;
      EXPECT_THAT(resize_image(photo, 2, 3).pixels, ElementsAre(10, 20, 30, 40, 50, 60))
          << orientation;
    }
  }
}

TEST(ImageColour, DamagedExifIsNoOrientation) {
  test::RawPng image{.height = 1, .width = 2, .rows = {1, 2}};
  const std::string whole = test::exif_block(3);
  for (std::size_t size = 5; size < whole.size() - 7; ++size) {
    image.exif = whole.substr(0, size);
    EXPECT_THAT(decode_image(test::raw_png(image), 1, "e").pixels, ElementsAre(1, 2)) << size;
  }
  for (const int value : {0, 9, 255}) {
    image.exif = test::exif_block(value);
    EXPECT_THAT(decode_image(test::raw_png(image), 1, "e").pixels, ElementsAre(1, 2)) << value;
  }
}

TEST(Image, SizesInTheHeaderTakeNoMemoryThatTheFileCannotFill) {
  std::string png = png_bytes(test::plain(4, 4, 1, 0));
  // In IHDR, width and height start at byte 16, and the checksum at byte 29.
  const auto with_size = [&](std::uint32_t width, std::uint32_t height) {
    std::string out = png;
    for (int i = 0; i < 4; ++i) {
      out[static_cast<std::size_t>(16 + i)] = static_cast<char>(width >> (24 - 8 * i));
      out[static_cast<std::size_t>(20 + i)] = static_cast<char>(height >> (24 - 8 * i));
    }
    const auto crc = static_cast<std::uint32_t>(
        crc32(0, reinterpret_cast<const unsigned char*>(out.data()) + 12, 17));
    for (int i = 0; i < 4; ++i) {
      out[static_cast<std::size_t>(29 + i)] = static_cast<char>(crc >> (24 - 8 * i));
    }
    return out;
  };
  const auto fault = [&](std::uint32_t width, std::uint32_t height) {
    return error_text([&] { decode_image(with_size(width, height), 1, "big.png"); });
  };
  EXPECT_THAT(fault(16000, 16000), AllOf(HasSubstr("big.png"), HasSubstr("cut short")));
  EXPECT_THAT(fault(40000, 4), HasSubstr("image of 40000 x 4 pixels; expected"));
  EXPECT_THAT(fault(30000, 30000), HasSubstr("at most 268435456 pixels"));
}

TEST(Image, JpegSizesTakeNoMemoryThatTheFileCannotFill) {
  std::string jpeg = jpeg_bytes(test::plain(16, 16, 1, 0));
  const auto frame = jpeg.find("\xff\xc0");  // Height and width start at its fifth byte.
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\x40\x00\x3f\xff", 4);
  EXPECT_THAT(error_text([&] { decode_image(jpeg, 1, "big.jpg"); }),
              AllOf(HasSubstr("big.jpg"), HasSubstr("cut short")));
  // A constant picture of this size is as small as a JPEG can be.
  EXPECT_EQ(decode_image(jpeg_bytes(test::plain(2000, 2000, 1, 128), 1), 1, "p.jpg").width, 2000);
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
  // The results are means of the four 2 x 2 blocks.
  EXPECT_THAT(resize_image(image, 2, 2).pixels, ElementsAre(25, 45, 105, 125));
  // Omniglot's ratio is 105 to 28. The mean must stay, and a constant image must stay constant.
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
