// Plots as SVG text for the report: lines, bands, points, error bars and bars over linear or
// logarithmic axes with ticks at round numbers. Colours are CSS (variables and currentColor), so
// that the page sets them for light and dark displays. Values that are not finite, or not positive
// on a logarithmic axis, are gaps: no such number is in the text.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kshot::svg {

/// Returns the text with `&`, `<`, `>` and quotes as entities, and with control characters, which
/// XML forbids, as U+FFFD.
std::string escape(std::string_view text);
/// Returns a number for a label: at most `digits` significant digits, no trailing zeros, 12000 as
/// 12k.
std::string number(double value, int digits = 3);

enum class Marker { circle, square, diamond, triangle };

/// The style of a line, area or set of points.
struct Style {
  std::string color = "currentColor";  ///< any CSS colour
  double width = 1.8;                  ///< width of lines, or radius of points, pixels
  double opacity = 1.0;
  std::string dash = {};  ///< SVG dash array; empty: a solid line
  double shift = 0.0;  ///< pixels to the right, so that several methods' intervals do not overlap
  Marker marker = Marker::circle;
  std::string tooltip = {};  ///< text that is shown with each point's numbers
};

struct Tick {
  double value;
  std::string label;
};

/// An axis of a panel.
struct Axis {
  std::string label;
  bool log = false;
  bool integers = false;    ///< true: ticks only at whole numbers
  bool tick_labels = true;  ///< false: ticks without text, for panels that share an axis
  double low = 0.0;         ///< lower limit; where low >= high, the data give both limits
  double high = 0.0;        ///< upper limit
  double pad = 0.04;        ///< share of the range that is added to limits from the data
  std::vector<Tick> ticks;  ///< empty: the axis chooses its ticks
};

/// Returns ticks at multiples of 1, 2 or 5 times a power of ten, which divide [low, high] into
/// about `count` parts.
std::vector<Tick> linear_ticks(double low, double high, int count, bool integers = false);
/// Returns ticks at powers of ten, with multiples between them where these are few; low > 0.
std::vector<Tick> log_ticks(double low, double high, int count);

/// One panel. Its parts are drawn in the order of the calls.
class Plot {
 public:
  std::string title;
  Axis x, y;

  void line(std::span<const double> xs, std::span<const double> ys, const Style& style);
  /// Fills the area between two curves, with gaps as in lines.
  void band(std::span<const double> xs, std::span<const double> lows, std::span<const double> highs,
            const Style& style);
  void points(std::span<const double> xs, std::span<const double> ys, const Style& style);
  /// Draws vertical bars y -+ half_width with caps. A half width that is zero or not finite is left
  /// out.
  void error_bars(std::span<const double> xs, std::span<const double> ys,
                  std::span<const double> half_widths, const Style& style);
  /// Draws bars from zero over [left, right].
  void bars(std::span<const double> lefts, std::span<const double> rights,
            std::span<const double> heights, const Style& style);
  /// Writes a label centred above a point, `dy` pixels up.
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

/// Panels in a grid, as one <svg> element. All plot areas of a row have the same size.
struct Grid {
  std::vector<std::vector<Plot>> rows;
  double panel_width = 420.0;            ///< width of a plot area, pixels
  double panel_height = 240.0;           ///< height of a plot area, pixels
  std::vector<double> row_heights = {};  ///< heights of the first rows in place of panel_height
  std::vector<std::string> row_titles;   ///< titles at the left, or none
  std::string description;               ///< text for screen readers

  double height(std::size_t row) const {
    return row < row_heights.size() ? row_heights[row] : panel_height;
  }
};
std::string render(const Grid& grid);

}  // namespace kshot::svg
