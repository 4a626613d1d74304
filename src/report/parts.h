// What the sections of a report are written with: colours, headings, figures, legends, tables.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "report/page.h"
#include "report/svg.h"

namespace kshot::report {

/// How a series looks: one colour for what stands before the first comma of its name ("ABML" of
/// "ABML, 5 shots"), and a variation for each further name with that colour.
struct Look {
  std::string color;
  std::size_t variant = 0;

  double opacity() const;
  std::string dash() const;
  svg::Marker marker() const;
};

/// Keeps colours through a whole page.
class Palette {
 public:
  std::string color(const std::string& name);
  /// Looks of the series of one figure.
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
/// Throws Error unless `what` has the expected length.
void check_length(std::size_t found, std::size_t expected, const std::string& what);

}  // namespace kshot::report
