// Building blocks of the sections of a report: colours, headings, figures, legends and tables.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "report/page.h"
#include "report/svg.h"

namespace kshot::report {

constexpr double page_width = 1080.0;  ///< width of the text column, pixels

/// The look of a series. Series whose names agree up to the first comma ("ABML" of "ABML, 5 shots")
/// have one colour, and each further one of them has another variant.
struct Look {
  std::string color;
  std::size_t variant = 0;

  double opacity() const;
  std::string dash() const;
  svg::Marker marker() const;
};

/// Assigns colours to names, the same in the whole page.
class Palette {
 public:
  std::string color(const std::string& name);
  /// Returns the looks of the series of one figure.
  std::vector<Look> looks(const std::vector<std::string>& names);

 private:
  std::vector<std::string> bases_;
};

enum class Swatch { line, marker, area };

struct LegendEntry {
  std::string label;
  std::string color;
  Swatch swatch = Swatch::line;
  std::string dash = {};
  double opacity = 1.0;
  double width = 2.0;
};

std::string legend(const std::vector<LegendEntry>& entries);
std::string heading(const std::string& text);
std::string caption(const std::string& text);
std::string figure(const std::string& svg, const std::string& below = {});
std::string table(const Table& t);
/// Widens the range [low, high] by the finite ones of `values`.
void extend_range(const std::vector<double>& values, double& low, double& high);
/// Throws Error that names `what` unless the length is the expected one.
void check_length(std::size_t found, std::size_t expected, const std::string& what);

}  // namespace kshot::report
