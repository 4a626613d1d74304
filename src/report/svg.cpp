#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kshot::svg {
namespace {

constexpr double kFont = 12.0;           // font size in pixels, set on the <svg> element
constexpr double kCharacter = 6.7;       // mean width of a character, estimated on the wide side
constexpr double kTitleCharacter = 8.6;  // this width in a title, which is bold and larger
constexpr double kTitleLine = 16.0;      // height of a line of a title, pixels
constexpr double kGap = 14.0;            // gap to the right of a panel, pixels
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Returns a coordinate with two decimals, which is a hundredth of a pixel.
std::string at(double value) {
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

/// Returns a coordinate of a curve with one decimal, which keeps long curves short.
std::string px(double value) {
  return fmt::format("{:.1f}", value);
}

std::size_t characters(std::string_view utf8) {
  return static_cast<std::size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

/// Breaks a title into lines of at most `width` pixels, at spaces, and within a word that is longer
/// than a line.
std::vector<std::string> title_lines(std::string_view title, double width) {
  const auto most = static_cast<std::size_t>(std::max(4.0, width / kTitleCharacter));
  std::vector<std::string> lines;
  std::string line;
  std::size_t used = 0;  // number of characters of the line
  const auto end_line = [&] {
    if (!line.empty()) lines.push_back(std::move(line));
    line.clear();
    used = 0;
  };
  for (std::size_t from = 0; from < title.size();) {
    const std::size_t to = std::min(title.find(' ', from), title.size());
    const std::string_view word = title.substr(from, to - from);
    if (used > 0 && used + 1 + characters(word) > most) end_line();
    if (used > 0 && !word.empty()) {
      line += ' ';
      ++used;
    }
    for (const char c : word) {
      const bool begins_character = (c & 0xc0) != 0x80;
      if (begins_character && used == most) end_line();
      line += c;
      used += begins_character ? 1 : 0;
    }
    from = to + 1;
  }
  end_line();
  return lines;
}

std::string superscript(int value) {
  static constexpr const char* digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string out = value < 0 ? "⁻" : "";
  for (char c : std::to_string(std::abs(value))) out += digits[c - '0'];
  return out;
}

/// Returns a number with fixed decimals and a true minus sign.
std::string fixed(double value, int decimals) {
  std::string text = fmt::format("{:.{}f}", value, decimals);
  if (text[0] == '-') {
    text.erase(0, 1);
    if (text.find_first_of("123456789") != std::string::npos) text.insert(0, "−");
  }
  return text;
}

/// Returns the label of a tick. `largest` is the largest value of the axis, so that all labels have
/// the same form.
std::string tick_label(double value, double step, double largest) {
  if (value == 0.0) return "0";
  if (largest >= 1e7 || step < 1e-5) {
    const int exponent = static_cast<int>(std::floor(std::log10(std::abs(value)) + 1e-9));
    const double digits = value / std::pow(10.0, exponent);
    return fmt::format("{:.3g}·10{}", digits, superscript(exponent));
  }
  const auto decimals_of = [](double s) {
    return std::max(0, static_cast<int>(std::ceil(-std::log10(s) - 1e-9)));
  };
  if (largest >= 1e4 && step >= 100.0) return fixed(value / 1000.0, decimals_of(step / 1e3)) + "k";
  return fixed(value, decimals_of(step));
}

std::string decade_label(double value) {
  const int exponent = static_cast<int>(std::floor(std::log10(value) + 1e-9));
  const double digit = value / std::pow(10.0, exponent);
  if (exponent >= -3 && exponent <= 3) return fixed(value, std::max(0, -exponent));
  if (digit > 1.5) return fmt::format("{:.0f}·10{}", digit, superscript(exponent));
  return "10" + superscript(exponent);
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') {
          out += "\xef\xbf\xbd";
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string number(double value, int digits) {
  if (!std::isfinite(value)) return "–";
  if (value == 0.0) return "0";
  const double size = std::abs(value);
  const std::string sign = value < 0.0 ? "−" : "";
  if (size < 1e-4 || size >= 1e7) {
    const int exponent = static_cast<int>(std::floor(std::log10(size)));
    return sign + fmt::format("{:.{}g}·10{}", size / std::pow(10.0, exponent), digits,
                              superscript(exponent));
  }
  const bool thousands = size >= 1e4;
  const double shown = thousands ? size / 1e3 : size;
  const int decimals = std::max(0, digits - 1 - static_cast<int>(std::floor(std::log10(shown))));
  std::string text = fmt::format("{:.{}f}", shown, decimals);
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return sign + text + (thousands ? "k" : "");
}

std::vector<Tick> linear_ticks(double low, double high, int count, bool integers) {
  std::vector<Tick> ticks;
  if (!(high > low) || !std::isfinite(high - low)) return ticks;
  const double raw = (high - low) / std::max(1, count);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double part = raw / power;  // in [1, 10); the step is the round number nearest by ratio
  double step = (part < 1.5 ? 1.0 : part < 3.5 ? 2.0 : part < 7.5 ? 5.0 : 10.0) * power;
  if (integers) step = std::max(step, 1.0);
  const double slack = 1e-9 * (high - low);
  const double largest = std::max(std::abs(low), std::abs(high));
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; i += 1.0) {
    ticks.push_back({i * step, tick_label(i * step, step, largest)});
  }
  return ticks;
}

std::vector<Tick> log_ticks(double low, double high, int count) {
  const int first = static_cast<int>(std::floor(std::log10(low) + 1e-9));
  const int last = static_cast<int>(std::ceil(std::log10(high) - 1e-9));
  const auto collect = [&](std::initializer_list<double> digits, int stride) {
    std::vector<Tick> ticks;
    for (int e = first; e <= last; ++e) {
      if ((e % stride + stride) % stride != 0) continue;
      for (double digit : digits) {
        const double value = digit * std::pow(10.0, e);
        if (value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9)) {
          ticks.push_back({value, decade_label(value)});
        }
      }
    }
    return ticks;
  };
  // The choice with the most ticks that are not too many.
  for (const auto& digits :
       {std::initializer_list<double>{1, 2, 3, 4, 5, 6, 8}, std::initializer_list<double>{1, 2, 5},
        std::initializer_list<double>{1, 3}}) {
    auto ticks = collect(digits, 1);
    if (static_cast<int>(ticks.size()) <= count + 1) {
      return ticks.size() >= 2 ? ticks : linear_ticks(low, high, count);
    }
  }
  for (int stride = 1;; ++stride) {
    auto ticks = collect({1}, stride);
    if (static_cast<int>(ticks.size()) <= count + 1) return ticks;
  }
}

void Plot::line(std::span<const double> xs, std::span<const double> ys, const Style& style) {
  layers_.push_back({Kind::line, {xs.begin(), xs.end()}, {ys.begin(), ys.end()}, {}, style, {}});
}

void Plot::band(std::span<const double> xs, std::span<const double> lows,
                std::span<const double> highs, const Style& style) {
  layers_.push_back({Kind::band,
                     {xs.begin(), xs.end()},
                     {lows.begin(), lows.end()},
                     {highs.begin(), highs.end()},
                     style,
                     {}});
}

void Plot::points(std::span<const double> xs, std::span<const double> ys, const Style& style) {
  layers_.push_back({Kind::points, {xs.begin(), xs.end()}, {ys.begin(), ys.end()}, {}, style, {}});
}

void Plot::error_bars(std::span<const double> xs, std::span<const double> ys,
                      std::span<const double> half_widths, const Style& style) {
  layers_.push_back({Kind::error_bars,
                     {xs.begin(), xs.end()},
                     {ys.begin(), ys.end()},
                     {half_widths.begin(), half_widths.end()},
                     style,
                     {}});
}

void Plot::bars(std::span<const double> lefts, std::span<const double> rights,
                std::span<const double> heights, const Style& style) {
  layers_.push_back({Kind::bars,
                     {lefts.begin(), lefts.end()},
                     {heights.begin(), heights.end()},
                     {rights.begin(), rights.end()},
                     style,
                     {}});
}

void Plot::text(double x_at, double y_at, std::string label, double dy) {
  Style style;
  style.shift = dy;
  layers_.push_back({Kind::text, {x_at}, {y_at}, {}, style, std::move(label)});
}

/// Finds limits and ticks of one panel, and draws it.
class Renderer {
 public:
  Renderer(const Plot& plot, double width, double height)
      : plot_(plot),
        x_{plot.x, 0.0, width},
        y_{plot.y, height, 0.0},
        width_(width),
        height_(height),
        title_(title_lines(plot.title, width)) {
    for (const auto& layer : plot.layers_) {
      const bool range = layer.kind == Plot::Kind::band;
      const bool interval = layer.kind == Plot::Kind::error_bars;
      const bool bars = layer.kind == Plot::Kind::bars;
      for (std::size_t i = 0; i < layer.a.size(); ++i) {
        x_.extend(layer.a[i]);
        y_.extend(layer.b[i]);
        if (range) y_.extend(layer.c[i]);
        if (interval && std::isfinite(layer.c[i])) {
          y_.extend(layer.b[i] - layer.c[i]);
          y_.extend(layer.b[i] + layer.c[i]);
        }
        if (bars) {
          x_.extend(layer.c[i]);
          y_.extend(0.0);
          y_.has_bars = true;
        }
      }
    }
    x_.fix_range(std::clamp(static_cast<int>(width / 70.0), 2, 8));
    y_.fix_range(std::clamp(static_cast<int>(height / 45.0), 2, 7));
  }

  double left_margin() const {
    std::size_t longest = 0;
    if (plot_.y.tick_labels) {
      for (const Tick& tick : y_.ticks) longest = std::max(longest, characters(tick.label));
    }
    const double labels = longest > 0 ? kCharacter * static_cast<double>(longest) + 8.0 : 4.0;
    return labels + (plot_.y.label.empty() ? 2.0 : 20.0);
  }
  double top_margin() const {
    return title_.empty() ? 8.0 : 10.0 + kTitleLine * static_cast<double>(title_.size());
  }
  double bottom_margin() const {
    return (plot_.x.tick_labels ? 20.0 : 5.0) + (plot_.x.label.empty() ? 2.0 : 20.0);
  }

  /// Draws the panel with the upper left corner of its plot area at (left, top). Its labels fit
  /// into `margin` pixels at the left.
  void draw(std::string& out, double left, double top, double margin) const {
    out += fmt::format("<g transform=\"translate({},{})\">\n", at(left), at(top));
    axes(out, margin);
    // A nested <svg> clips the plot without ids.
    out += fmt::format("<svg width=\"{}\" height=\"{}\">\n", at(width_), at(height_));
    for (const auto& layer : plot_.layers_) {
      switch (layer.kind) {
        case Plot::Kind::line:
          line(out, layer);
          break;
        case Plot::Kind::band:
          band(out, layer);
          break;
        case Plot::Kind::points:
          points(out, layer);
          break;
        case Plot::Kind::error_bars:
          error_bars(out, layer);
          break;
        case Plot::Kind::bars:
          bars(out, layer);
          break;
        case Plot::Kind::text:
          text(out, layer);
          break;
      }
    }
    out += "</svg>\n</g>\n";
  }

 private:
  struct Scale {
    const Axis& axis;
    double from, to;  // pixels
    double low = kInfinity, high = -kInfinity;
    bool has_bars = false;  // true: the panel has bars, which stand on the axis
    std::vector<Tick> ticks = {};

    bool usable(double value) const { return std::isfinite(value) && (!axis.log || value > 0.0); }
    void extend(double value) {
      if (!usable(value)) return;
      low = std::min(low, value);
      high = std::max(high, value);
    }
    void fix_range(int count) {
      if (axis.low < axis.high && usable(axis.low) && usable(axis.high)) {
        low = axis.low;
        high = axis.high;
      } else {
        if (low > high) {  // there are no data
          low = axis.log ? 0.1 : 0.0;
          high = 1.0;
        }
        if (axis.log) {
          const double ratio = std::max(std::pow(high / low, axis.pad), low < high ? 1.0 : 2.0);
          low = std::max(low / ratio, std::numeric_limits<double>::min());
          high = std::min(high * ratio, std::numeric_limits<double>::max());
        } else {
          double pad = (0.5 * high - 0.5 * low) * 2.0 * axis.pad;
          if (low == high) pad = std::max(0.5, 0.1 * std::abs(low));
          if (!has_bars || low != 0.0) low -= pad;
          high += pad;
        }
      }
      if (!axis.ticks.empty()) {
        for (const Tick& tick : axis.ticks) {
          if (usable(tick.value) && tick.value >= low && tick.value <= high) ticks.push_back(tick);
        }
      } else {
        ticks =
            axis.log ? log_ticks(low, high, count) : linear_ticks(low, high, count, axis.integers);
      }
    }
    /// Returns the position in pixels. Far values stay near the plot area.
    double operator()(double value) const {
      double share;
      if (axis.log) {
        share = std::log(value / low) / std::log(high / low);
      } else {
        share = (value - low) / (high - low);
      }
      return from + std::clamp(share, -20.0, 20.0) * (to - from);
    }
  };

  void axes(std::string& out, double margin) const {
    out += "<g class=\"grid\">";
    for (const Tick& tick : y_.ticks) {
      out += fmt::format("<line x1=\"0\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>", at(width_),
                         at(y_(tick.value)), at(y_(tick.value)));
    }
    for (const Tick& tick : x_.ticks) {
      out += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"0\" y2=\"{}\"/>", at(x_(tick.value)),
                         at(x_(tick.value)), at(height_));
    }
    out += fmt::format("</g>\n<path class=\"axis\" d=\"M0 0V{}H{}\"/>\n<g class=\"ticks\">",
                       at(height_), at(width_));
    if (plot_.y.tick_labels) {
      for (const Tick& tick : y_.ticks) {
        out += fmt::format("<text x=\"-7\" y=\"{}\" text-anchor=\"end\">{}</text>",
                           at(y_(tick.value) + 4.0), escape(tick.label));
      }
    }
    if (plot_.x.tick_labels) {
      double free_from = -kInfinity;  // labels that would touch their neighbour are left out
      for (const Tick& tick : x_.ticks) {
        const double half = 0.5 * kCharacter * static_cast<double>(characters(tick.label));
        // A label at an end of the axis moves inwards, because it would be cut off otherwise.
        const double middle =
            std::max(half - margin, std::min(x_(tick.value), width_ + kGap - 1.0 - half));
        if (middle - half < free_from) continue;
        free_from = middle + half + 4.0;
        out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>", at(middle),
                           at(height_ + 17.0), escape(tick.label));
      }
    }
    out += "</g>\n";
    if (!plot_.x.label.empty()) {
      out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                         at(0.5 * width_), at(height_ + (plot_.x.tick_labels ? 36.0 : 20.0)),
                         escape(plot_.x.label));
    }
    if (!plot_.y.label.empty()) {
      out += fmt::format(
          "<text transform=\"translate({},{}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
          at(13.0 - margin), at(0.5 * height_), escape(plot_.y.label));
    }
    double above = kTitleLine * static_cast<double>(title_.size()) - 6.0;
    for (const std::string& line : title_) {
      out += fmt::format("<text class=\"title\" x=\"0\" y=\"{}\">{}</text>\n", at(-above),
                         escape(line));
      above -= kTitleLine;
    }
  }

  bool drawable(const Plot::Layer& layer, std::size_t i) const {
    return x_.usable(layer.a[i]) && y_.usable(layer.b[i]);
  }

  void line(std::string& out, const Plot::Layer& layer) const {
    std::string path;
    bool pen = false;
    for (std::size_t i = 0; i < layer.a.size(); ++i) {
      if (!drawable(layer, i)) {
        pen = false;
        continue;
      }
      path += fmt::format("{}{} {}", pen ? 'L' : 'M', px(x_(layer.a[i]) + layer.style.shift),
                          px(y_(layer.b[i])));
      // A point between two gaps becomes a dot, the round cap of a line without length.
      if (!pen && (i + 1 == layer.a.size() || !drawable(layer, i + 1))) path += "h0";
      pen = true;
    }
    if (path.empty()) return;
    out += fmt::format(
        "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\" "
        "stroke-linejoin=\"round\" stroke-linecap=\"round\"",
        path, escape(layer.style.color), at(layer.style.width), at(layer.style.opacity));
    if (!layer.style.dash.empty()) {
      out += fmt::format(" stroke-dasharray=\"{}\"", escape(layer.style.dash));
    }
    out += "/>\n";
  }

  void band(std::string& out, const Plot::Layer& layer) const {
    const auto usable = [&](std::size_t i) {
      return x_.usable(layer.a[i]) && y_.usable(layer.c[i]) && std::isfinite(layer.b[i]);
    };
    std::string path;
    for (std::size_t i = 0; i < layer.a.size();) {
      std::string back;
      std::size_t j = i;
      for (; j < layer.a.size() && usable(j); ++j) {
        // A lower edge that a logarithmic axis cannot show lies below the plot.
        const double low = y_.usable(layer.b[j]) ? y_(layer.b[j]) : height_ + 10.0;
        const std::string x = px(x_(layer.a[j]));
        path += fmt::format("{}{} {}", j == i ? 'M' : 'L', x, px(y_(layer.c[j])));
        back.insert(0, fmt::format("L{} {}", x, px(low)));
      }
      if (j > i) path += back + "Z";
      i = std::max(j, i + 1);
    }
    if (path.empty()) return;
    out += fmt::format("<path d=\"{}\" fill=\"{}\" fill-opacity=\"{}\"/>\n", path,
                       escape(layer.style.color), at(layer.style.opacity));
  }

  void points(std::string& out, const Plot::Layer& layer) const {
    const double r = layer.style.width;
    out += fmt::format("<g class=\"points\" fill=\"{}\" fill-opacity=\"{}\">",
                       escape(layer.style.color), at(layer.style.opacity));
    for (std::size_t i = 0; i < layer.a.size(); ++i) {
      if (!drawable(layer, i)) continue;
      const double cx = x_(layer.a[i]) + layer.style.shift;
      const double cy = y_(layer.b[i]);
      std::string shape;
      switch (layer.style.marker) {
        case Marker::circle:
          shape = fmt::format("M{} {}a{} {} 0 1 0 {} 0a{} {} 0 1 0 {} 0Z", at(cx - r), at(cy),
                              at(r), at(r), at(2 * r), at(r), at(r), at(-2 * r));
          break;
        case Marker::square:
          shape = fmt::format("M{} {}h{}v{}h{}Z", at(cx - 0.9 * r), at(cy - 0.9 * r), at(1.8 * r),
                              at(1.8 * r), at(-1.8 * r));
          break;
        case Marker::diamond:
          shape =
              fmt::format("M{} {}l{} {}l{} {}l{} {}Z", at(cx), at(cy - 1.25 * r), at(1.25 * r),
                          at(1.25 * r), at(-1.25 * r), at(1.25 * r), at(-1.25 * r), at(-1.25 * r));
          break;
        case Marker::triangle:
          shape = fmt::format("M{} {}l{} {}h{}Z", at(cx), at(cy - 1.2 * r), at(1.2 * r),
                              at(2.1 * r), at(-2.4 * r));
          break;
      }
      out += fmt::format("<path d=\"{}\"><title>{}{}, {}</title></path>", shape,
                         layer.style.tooltip.empty() ? "" : escape(layer.style.tooltip) + ": ",
                         number(layer.a[i], 4), number(layer.b[i], 4));
    }
    out += "</g>\n";
  }

  void error_bars(std::string& out, const Plot::Layer& layer) const {
    std::string path;
    for (std::size_t i = 0; i < layer.a.size(); ++i) {
      if (!drawable(layer, i) || !std::isfinite(layer.c[i]) || !(layer.c[i] > 0.0)) continue;
      const double middle = x_(layer.a[i]) + layer.style.shift;
      const double top = y_(layer.b[i] + layer.c[i]);
      const double low = layer.b[i] - layer.c[i];
      const bool open = !y_.usable(low);  // the bar leaves a logarithmic axis at its lower end
      const double bottom = open ? height_ + 10.0 : y_(low);
      path += fmt::format("M{} {}V{}M{} {}h7", at(middle), at(top), at(bottom), at(middle - 3.5),
                          at(top));
      if (!open) path += fmt::format("M{} {}h7", at(middle - 3.5), at(bottom));
    }
    if (path.empty()) return;
    out += fmt::format(
        "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\"/>\n",
        path, escape(layer.style.color), at(layer.style.width), at(layer.style.opacity));
  }

  void bars(std::string& out, const Plot::Layer& layer) const {
    out += fmt::format("<g fill=\"{}\" fill-opacity=\"{}\">", escape(layer.style.color),
                       at(layer.style.opacity));
    for (std::size_t i = 0; i < layer.a.size(); ++i) {
      if (!drawable(layer, i) || !x_.usable(layer.c[i])) continue;
      const double left = x_(layer.a[i]) + 0.5;
      const double right = x_(layer.c[i]) - 0.5;
      const double zero = y_.axis.log ? height_ : y_(0.0);
      const double end = y_(layer.b[i]);
      out += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}{}</title></rect>", at(left),
          at(std::min(zero, end)), at(std::max(0.0, right - left)), at(std::abs(zero - end)),
          layer.style.tooltip.empty() ? "" : escape(layer.style.tooltip) + ": ",
          number(layer.b[i], 4));
    }
    out += "</g>\n";
  }

  void text(std::string& out, const Plot::Layer& layer) const {
    if (!drawable(layer, 0)) return;
    out += fmt::format("<text class=\"note\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                       at(x_(layer.a[0])), at(y_(layer.b[0]) - layer.style.shift),
                       escape(layer.label));
  }

  const Plot& plot_;
  Scale x_, y_;
  double width_, height_;
  std::vector<std::string> title_;  // lines of the title
};

std::string render(const Grid& grid) {
  std::vector<std::vector<Renderer>> panels;
  std::vector<double> left, top, bottom;  // left margin per column, others per row
  for (std::size_t r = 0; r < grid.rows.size(); ++r) {
    panels.emplace_back();
    top.push_back(0.0);
    bottom.push_back(0.0);
    for (std::size_t c = 0; c < grid.rows[r].size(); ++c) {
      const Renderer& panel =
          panels[r].emplace_back(grid.rows[r][c], grid.panel_width, grid.height(r));
      if (c == left.size()) left.push_back(0.0);
      left[c] = std::max(left[c], panel.left_margin());
      top[r] = std::max(top[r], panel.top_margin());
      bottom[r] = std::max(bottom[r], panel.bottom_margin());
    }
  }
  std::vector<std::vector<std::string>> row_titles;
  double title = 0.0;  // width of the row titles, which run upwards
  for (std::size_t r = 0; r < grid.row_titles.size(); ++r) {
    row_titles.push_back(title_lines(grid.row_titles[r], grid.height(r)));
    title = std::max(title, 8.0 + kTitleLine * static_cast<double>(row_titles.back().size()));
  }
  double width = title;
  for (double margin : left) width += margin + grid.panel_width + kGap;
  double height = 0.0;
  for (std::size_t r = 0; r < top.size(); ++r) height += top[r] + grid.height(r) + bottom[r];

  std::string out = fmt::format(
      "<svg class=\"plot\" role=\"img\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" "
      "font-size=\"{}\" fill=\"currentColor\">\n",
      at(width), at(height), at(width), at(height), at(kFont));
  if (!grid.description.empty()) out += "<title>" + escape(grid.description) + "</title>\n";
  double y = 0.0;
  for (std::size_t r = 0; r < panels.size(); ++r) {
    double x = title;
    y += top[r];
    double down = 14.0;
    for (const std::string& line :
         r < row_titles.size() ? row_titles[r] : std::vector<std::string>{}) {
      out += fmt::format(
          "<text class=\"title\" transform=\"translate({},{}) rotate(-90)\" "
          "text-anchor=\"middle\">{}</text>\n",
          at(down), at(y + 0.5 * grid.height(r)), escape(line));
      down += kTitleLine;
    }
    for (std::size_t c = 0; c < panels[r].size(); ++c) {
      x += left[c];
      panels[r][c].draw(out, x, y, left[c]);
      x += grid.panel_width + kGap;
    }
    y += grid.height(r) + bottom[r];
  }
  return out + "</svg>\n";
}

}  // namespace kshot::svg
