// Plots as SVG text for the report: lines, bands, points, error bars and bars over linear or
// logarithmic axes with ticks at round numbers. Colours are CSS (variables and currentColor), so a
// page decides them for light and dark. Values that are not finite, or not positive on a
// logarithmic axis, are gaps: no such number reaches the text.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kshot::svg {

/// `&`, `<`, `>` and quotes as entities; control characters, which XML forbids, as U+FFFD.
std::string escape(std::string_view text);
/// A number of a text label: up to `digits` significant ones, no trailing zeros, 12000 as 12k.
std::string number(double value, int digits = 3);

enum class Marker { circle, square, diamond, triangle };

struct Style {
  std::string color = "currentColor";  ///< any CSS colour
  double width = 1.8;                  ///< of lines, pixels; of points, the radius
  double opacity = 1.0;
  std::string dash = {};  ///< SVG dash array, "" is solid
  double shift = 0.0;  ///< pixels to the right, so that several methods' intervals do not overlap
  Marker marker = Marker::circle;
  std::string tooltip = {};  ///< shown with each point's numbers
};

struct Tick {
  double value;
  std::string label;
};

struct Axis {
  std::string label;
  bool log = false;
  bool integers = false;    ///< ticks at whole numbers alone
  bool tick_labels = true;  ///< else ticks without text (panels that share an axis)
  double low = 0.0;         ///< limits; taken from the data where low >= high
  double high = 0.0;
  double pad = 0.04;        ///< of the range, added to limits taken from the data
  std::vector<Tick> ticks;  ///< chosen where empty
};

/// Round numbers that cut [low, high] into about `count` parts: 1, 2 or 5 times a power of ten.
std::vector<Tick> linear_ticks(double low, double high, int count, bool integers = false);
/// Powers of ten, with 2 and 5 between where few; low > 0.
std::vector<Tick> log_ticks(double low, double high, int count);

/// One panel. Drawn in the order of the calls.
class Plot {
 public:
  std::string title;
  Axis x, y;

  void line(std::span<const double> xs, std::span<const double> ys, const Style& style);
  /// The area between two curves; gaps as in lines.
  void band(std::span<const double> xs, std::span<const double> lows, std::span<const double> highs,
            const Style& style);
  void points(std::span<const double> xs, std::span<const double> ys, const Style& style);
  /// Vertical bars y -+ half_width with caps; one that is not finite or zero is left out.
  void error_bars(std::span<const double> xs, std::span<const double> ys,
                  std::span<const double> half_widths, const Style& style);
  /// Bars from zero over [left, right].
  void bars(std::span<const double> lefts, std::span<const double> rights,
            std::span<const double> heights, const Style& style);
  /// A label centred above a point; `dy` pixels up.
  void text(double x_at, double y_at, std::string label, double dy = 5.0);

 private:
  friend class Renderer;
  enum class Kind { line, band, points, error_bars, bars, text };
  struct Layer {
    Kind kind;
    std::vector<double> a, b, c;
    Style style;
    std::string label;
  };
  std::vector<Layer> layers_;
};

/// Panels in a grid, as one <svg> element; every panel's plot area has the same size.
struct Grid {
  std::vector<std::vector<Plot>> rows;
  double panel_width = 420.0;  ///< plot area, pixels
  double panel_height = 240.0;
  std::vector<double> row_heights = {};  ///< of the first rows, instead of panel_height
  std::vector<std::string> row_titles;   ///< at the left, or none
  std::string description;               ///< for screen readers

  double height(std::size_t row) const {
    return row < row_heights.size() ? row_heights[row] : panel_height;
  }
};
std::string render(const Grid& grid);

}  // namespace kshot::svg
