#include "report/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kshot/error.h"

namespace kshot::report {

using svg::escape;

namespace {

constexpr std::size_t kColors = 7;

}  // namespace

double Look::opacity() const {
  return std::max(0.3, 1.0 - 0.3 * static_cast<double>(variant));
}

std::string Look::dash() const {
  static constexpr std::array<const char*, 4> dashes = {"", "6 3", "2 3", "8 3 2 3"};
  return dashes[variant % dashes.size()];
}

svg::Marker Look::marker() const {
  using enum svg::Marker;
  static constexpr std::array<svg::Marker, 4> markers = {circle, square, diamond, triangle};
  return markers[variant % markers.size()];
}

std::string Palette::color(const std::string& name) {
  const std::string base = name.substr(0, name.find(','));
  const auto found = std::find(bases_.begin(), bases_.end(), base);
  const std::size_t index = static_cast<std::size_t>(found - bases_.begin());
  if (found == bases_.end()) bases_.push_back(base);
  return fmt::format("var(--c{})", index % kColors);
}

std::vector<Look> Palette::looks(const std::vector<std::string>& names) {
  std::vector<Look> out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    Look look{color(names[i]), 0};
    for (std::size_t j = 0; j < i; ++j) {
      if (out[j].color == look.color && names[j] != names[i]) ++look.variant;
    }
    out.push_back(look);
  }
  return out;
}

std::string heading(const std::string& text) {
  return "<h2>" + escape(text) + "</h2>\n";
}

std::string caption(const std::string& text) {
  return text.empty() ? "" : "<p class=\"caption\">" + escape(text) + "</p>\n";
}

std::string figure(const std::string& svg, const std::string& below) {
  return "<figure>\n<div class=\"scroll\">" + svg + "</div>\n" + below + "</figure>\n";
}

std::string legend(const std::vector<LegendEntry>& entries) {
  std::string out = "<div class=\"legend\">";
  for (const LegendEntry& e : entries) {
    std::string shape;
    switch (e.swatch) {
      case Swatch::line:
        shape = fmt::format(
            "<path d=\"M0 6H22\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\" "
            "stroke-dasharray=\"{}\"/>",
            e.color, e.width, e.opacity, e.dash.empty() ? "none" : e.dash);
        break;
      case Swatch::marker:
        shape = fmt::format("<circle cx=\"11\" cy=\"6\" r=\"4\" fill=\"{}\" fill-opacity=\"{}\"/>",
                            e.color, e.opacity);
        break;
      case Swatch::area:
        shape = fmt::format(
            "<rect x=\"2\" width=\"18\" height=\"12\" rx=\"2\" fill=\"{}\" fill-opacity=\"{}\"/>",
            e.color, e.opacity);
        break;
    }
    out +=
        fmt::format("<span><svg width=\"22\" height=\"12\" aria-hidden=\"true\">{}</svg>{}</span>",
                    shape, escape(e.label));
  }
  return out + "</div>\n";
}

std::string table(const Table& t) {
  std::string out;
  if (!t.title.empty()) out += "<h3>" + escape(t.title) + "</h3>\n";
  out += caption(t.caption) + "<div class=\"scroll\"><table>\n<thead><tr>";
  for (const std::string& column : t.columns) out += "<th>" + escape(column) + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (std::size_t r = 0; r < t.rows.size(); ++r) {
    const bool strong = std::find(t.strong.begin(), t.strong.end(), r) != t.strong.end();
    out += strong ? "<tr class=\"strong\">" : "<tr>";
    for (std::size_t c = 0; c < t.columns.size(); ++c) {
      out += "<td>" + (c < t.rows[r].size() ? escape(t.rows[r][c]) : std::string()) + "</td>";
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

void extend_range(const std::vector<double>& values, double& low, double& high) {
  for (double value : values) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
}

void check_length(std::size_t found, std::size_t expected, const std::string& what) {
  if (found != expected) {
    throw Error(fmt::format("report: {} has {} numbers, expected {}", what, found, expected));
  }
}

}  // namespace kshot::report
