// Report and comparison pages: well-formed HTML, finite coordinates, and the layout of figures.
#include "report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kshot/error.h"
#include "report/svg.h"

namespace kshot::report {
namespace {

/// A strict reader of the HTML of reports: tags must balance, attributes must be quoted, and text
/// must hold no bare `<` or `&`. Returns the first defect, or an empty text.
std::string defect(std::string_view html) {
  static const std::set<std::string> empty = {"meta", "br", "hr", "img", "link"};
  std::vector<std::string> open;
  std::size_t i = 0;
  const auto entity = [&](std::size_t at) {
    const std::size_t end = html.find(';', at);
    return end != std::string_view::npos && end - at <= 8 && end > at + 1;
  };
  while (i < html.size()) {
    if (html[i] == '&' && !entity(i)) return "bare & at " + std::string(html.substr(i, 40));
    if (html[i] != '<') {
      ++i;
      continue;
    }
    if (html.substr(i, 2) == "<!") {
      i = html.find('>', i) + 1;
      continue;
    }
    const bool closing = html[i + 1] == '/';
    std::size_t j = i + (closing ? 2 : 1);
    const std::size_t name_at = j;
    while (j < html.size() && (std::isalnum(static_cast<unsigned char>(html[j])) != 0)) ++j;
    const std::string name(html.substr(name_at, j - name_at));
    if (name.empty()) return "bare < at " + std::string(html.substr(i, 40));
    bool self = false;
    while (j < html.size() && html[j] != '>') {
      if (html[j] == '"') {
        for (++j; j < html.size() && html[j] != '"'; ++j) {
          if (html[j] == '<') return "< in an attribute of " + name;
          if (html[j] == '&' && !entity(j)) return "bare & in an attribute of " + name;
        }
        ++j;
      } else if (html[j] == '=' && html[j + 1] != '"') {
        return "unquoted attribute in " + name;
      } else {
        self = html[j] == '/';
        ++j;
      }
    }
    if (j >= html.size()) return "tag without end: " + name;
    i = j + 1;
    if (closing) {
      if (open.empty() || open.back() != name) {
        return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back());
      }
      open.pop_back();
    } else if (!self && !empty.contains(name)) {
      open.push_back(name);
      if (name == "style") i = html.find("</style>", i);
    }
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

TEST(HtmlChecker, FindsDefects) {
  EXPECT_EQ(defect("<p class=\"a\">x &amp; y<br></p>"), "");
  EXPECT_NE(defect("<p><b></p></b>"), "");
  EXPECT_NE(defect("<p>a & b</p>"), "");
  EXPECT_NE(defect("<p>a < b</p>"), "");
  EXPECT_NE(defect("<p class=a></p>"), "");
  EXPECT_NE(defect("<p>"), "");
}

/// Checks that every number of every attribute with coordinates is finite. Returns the first text
/// that is not, or an empty text.
std::string not_finite(std::string_view html) {
  for (const char* attribute : {" d=\"", " x=\"", " y=\"", " x1=\"", " x2=\"", " y1=\"", " y2=\"",
                                " width=\"", " height=\"", " transform=\"", " viewBox=\""}) {
    const std::string_view name = attribute;
    for (std::size_t at = html.find(name); at != std::string_view::npos;
         at = html.find(name, at + 1)) {
      const std::size_t from = at + name.size();
      std::string text(html.substr(from, html.find('"', from) - from));
      std::transform(text.begin(), text.end(), text.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      for (const char* bad : {"nan", "inf"}) {
        if (text.find(bad) != std::string::npos) return text;
      }
      for (const char* p = text.c_str(); *p != '\0';) {
        char* end = nullptr;
        const double value = std::strtod(p, &end);
        if (end == p) {
          ++p;
          continue;
        }
        if (!std::isfinite(value) || std::abs(value) > 1e5) return text;
        p = end;
      }
    }
  }
  return "";
}

std::vector<double> grid(std::size_t n) {
  std::vector<double> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = -5.0 + 10.0 * static_cast<double>(i) / static_cast<double>(n - 1);
  }
  return x;
}

Report sample() {
  Report report;
  report.title = "ABML & MAML on <sinusoids>";
  report.subtitle = "\"a quoted\" subtitle";
  report.cards = {{"MSE", "0.31 ± 0.02", "600 episodes"}, {"tasks/s", "21 k", ""}};
  report.notes = {"A note with an & in it."};
  for (const bool validation : {false, true}) {
    TrainingCurve curve{.name = "ABML", .quantity = "loss", .validation = validation};
    for (int i = 0; i < (validation ? 10 : 1500); ++i) {
      curve.step.push_back(validation ? 150.0 * i : i);
      curve.seconds.push_back(curve.step.back() * 0.01);
      curve.value.push_back(4.0 / (1.0 + 0.01 * curve.step.back()) + 0.1 * std::sin(9.0 * i));
      if (validation) curve.half_width.push_back(0.1);
    }
    if (!validation) curve.value[700] = NAN;
    report.training.push_back(curve);
  }
  TaskFigure task{.title = "Task 1", .x = grid(50)};
  for (double x : task.x) task.truth.push_back(2.0 * std::sin(x));
  for (const char* label : {"prior", "1 shot"}) {
    Fit fit{.label = label};
    FitBand band{.level = 0.9};
    for (double x : task.x) {
      fit.mean.push_back(1.5 * std::sin(x + 0.3));
      band.low.push_back(fit.mean.back() - 1.0);
      band.high.push_back(fit.mean.back() + (x > 4.0 ? INFINITY : 1.0));
    }
    fit.bands = {band};
    if (fit.label != "prior") {
      fit.support_x = {0.5};
      fit.support_y = {0.96};
    }
    if (task.methods.empty()) task.methods.push_back({.method = "ABML", .fits = {}});
    task.methods[0].fits.push_back(fit);
  }
  report.tasks = {task};
  Chart chart{.title = "Error against shots", .x_label = "support points", .y_label = "MSE"};
  chart.log_y = true;
  chart.curves = {{"ABML", {1, 5, 10}, {{2.5, 0.2, 100}, {0.7, 0.8, 100}, {0.0, NAN, 1}}},
                  {"MAML", {1, 5, 10}, {{3.0, 0.2, 100}, {0.9, 0.1, 100}, {0.5, 0.1, 100}}}};
  report.charts = {chart};
  report.coverage = {
      {"ABML, 5 shots", {0.5, 0.9, 0.95}, {{0.45, 0.02, 9}, {0.8, 0.02, 9}, {0.9, NAN, 1}}}};
  metrics::Calibration calibration;
  for (int i = 0; i < 100; ++i) calibration.add(0.3 + 0.007 * i, i % 3 != 0);
  report.reliability = {{"MAML", calibration.ece(), calibration.bins()}};
  report.tables = {{.title = "Evaluation",
                    .caption = "",
                    .columns = {"method", "MSE"},
                    .rows = {{"ABML", "0.3"}, {"support mean"}},
                    .strong = {0}}};
  report.diverged = {{"training", 3, 1000, "rate too large?"}};
  report.configuration = "algorithm = \"abml\"\nx = 1 < 2";
  report.environment = {{"version", "0.1.0"}, {"machine", "a & b"}};
  return report;
}

TEST(Report, IsWellFormedSelfContainedAndFinite) {
  const std::string html = render(sample());
  EXPECT_EQ(defect(html), "");
  EXPECT_EQ(not_finite(html), "");
  for (const char* reference : {"http:", "https:", "src=", "url(", "@import", "<script", "<link"}) {
    EXPECT_EQ(html.find(reference), std::string::npos) << reference;
  }
  for (const char* part :
       {"ABML &amp; MAML on &lt;sinusoids&gt;", "Learning curves", "New tasks", "1 shot",
        "Error against shots", "Coverage of the bands", "Reliability", "support mean", "Diverged",
        "rate too large?", "algorithm = &quot;abml&quot;", "a &amp; b", "80.0 ± 2.0 %"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
}

TEST(Report, EmptyPartsAreLeftOut) {
  Report report;
  report.title = "Nothing yet";
  const std::string html = render(report);
  EXPECT_EQ(defect(html), "");
  EXPECT_EQ(html.find("<h2>"), std::string::npos);
  EXPECT_EQ(html.find("<svg"), std::string::npos);
}

/// There is one more thin line per sample, and an entry in the legend.
TEST(Report, DrawsSamples) {
  Report report = sample();
  const auto thin_lines = [](const std::string& html) {
    const std::string width = "stroke-width=\"0.8\"";
    std::size_t count = 0;
    for (auto at = html.find(width); at != std::string::npos; at = html.find(width, at + 1))
      ++count;
    return count;
  };
  const std::string without = render(report);
  EXPECT_EQ(without.find("samples (thin)"), std::string::npos);
  Fit& fit = report.tasks[0].methods[0].fits[1];
  fit.samples.assign(3, fit.mean);
  const std::string with = render(report);
  EXPECT_EQ(defect(with), "");
  EXPECT_NE(with.find("samples (thin)"), std::string::npos);
  EXPECT_EQ(thin_lines(with), thin_lines(without) + 3);
  fit.samples[1].pop_back();
  EXPECT_THROW(render(report), Error);
}

/// A fit with extreme values does not take the whole panel. Before bands, the range is that of the
/// given points, extended by its own length on either side.
TEST(Report, AFitThatWentAstrayDoesNotFlattenTheOthers) {
  Report report = sample();
  for (Fit& fit : report.tasks[0].methods[0].fits) fit.bands.clear();
  report.tasks[0].methods[0].fits[1].mean.back() = 1e7;
  const std::string html = render(report);
  EXPECT_EQ(defect(html), "");
  EXPECT_EQ(html.find("10⁷"), std::string::npos);
  EXPECT_EQ(html.find("e+"), std::string::npos);
}

TEST(Report, UnequalLengthsAreErrors) {
  Report report = sample();
  report.training[0].seconds.pop_back();
  EXPECT_THROW(render(report), Error);
  report = sample();
  report.tasks[0].methods[0].fits[0].mean.pop_back();
  EXPECT_THROW(render(report), Error);
  report = sample();
  report.coverage[0].observed.pop_back();
  EXPECT_THROW(render(report), Error);
}

TEST(Report, NothingFiniteStillRenders) {
  Report report = sample();
  for (double& value : report.training[0].value) value = NAN;
  for (double& value : report.tasks[0].truth) value = -INFINITY;
  for (double& value : report.tasks[0].methods[0].fits[1].mean) value = 1e308;
  for (Estimate& e : report.charts[0].curves[0].y) e = {-1.0, NAN, 0};
  const std::string html = render(report);
  EXPECT_EQ(defect(html), "");
  EXPECT_EQ(not_finite(html), "");
}

/// A training that logged only once. A line needs two points, so that the page has a marker.
TEST(Report, ACurveOfOnePointIsDrawn) {
  Report report;
  report.title = "short";
  report.training = {{.name = "m", .quantity = "loss", .validation = false}};
  report.training[0].step = {7.0};
  report.training[0].seconds = {0.5};
  report.training[0].value = {2.0};
  EXPECT_THAT(render(report), testing::HasSubstr("m: 7, 2</title>"));
}

TEST(Comparison, UnitesRunsSideBySide) {
  const Report one = sample();
  Comparison comparison{.title = "Runs", .subtitle = "", .runs = {}};
  for (const char* name : {"first", "second"}) {
    ComparedRun run{.name = name};
    run.numbers = {{"test MSE", "0.3 ± 0.1"}};
    run.training = one.training;
    run.charts = one.charts;
    run.coverage = one.coverage;
    run.reliability = one.reliability;
    run.diverged = one.diverged;
    run.configuration = {{"algorithm", "abml"}, {"inner.steps", name}};
    comparison.runs.push_back(run);
  }
  comparison.runs[1].numbers.push_back({"ECE", "1.2 %"});
  const std::string html = render(comparison);
  EXPECT_EQ(defect(html), "");
  EXPECT_EQ(not_finite(html), "");
  EXPECT_NE(html.find("first, MAML"), std::string::npos);
  EXPECT_NE(html.find("1.2 %"), std::string::npos);
  EXPECT_NE(html.find("inner.steps"), std::string::npos);
  EXPECT_EQ(html.find("<td>algorithm</td>"), std::string::npos);  // This key is equal in both runs.
}

TEST(Format, DigitsFollowTheInterval) {
  EXPECT_EQ(format({0.41234, 0.0312, 600}), "0.412 ± 0.031");
  EXPECT_EQ(format({-12.34, 1.5, 600}), "−12.3 ± 1.5");
  EXPECT_EQ(format({1234.5, 120.0, 600}), "1234 ± 120");
  EXPECT_EQ(format({0.41234, NAN, 1}), "0.4123");
  EXPECT_EQ(format({NAN, NAN, 0}), "–");
  EXPECT_EQ(format_percent({0.97312, 0.0028, 600}), "97.31 ± 0.28 %");
}

}  // namespace
}  // namespace kshot::report

namespace kshot::svg {
namespace {

std::vector<std::string> labels(const std::vector<Tick>& ticks) {
  std::vector<std::string> out;
  for (const Tick& tick : ticks) out.push_back(tick.label);
  return out;
}

/// Titles are names that a user chose. Long ones are broken into lines without losing any text.
TEST(Title, IsBrokenIntoLines) {
  const auto lines = [](const std::string& title) {
    svg::Grid grid;
    grid.rows.push_back({svg::Plot{}});
    grid.rows[0][0].title = title;
    const std::string text = svg::render(grid);
    std::vector<std::string> found;
    const std::string mark = "<text class=\"title\"";
    for (std::size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
      const std::size_t from = text.find('>', at) + 1;
      found.push_back(text.substr(from, text.find('<', from) - from));
    }
    return found;
  };
  EXPECT_EQ(lines("short"), std::vector<std::string>{"short"});
  EXPECT_TRUE(lines("").empty());
  std::string words, all;
  for (int i = 0; i < 30; ++i) words += (i > 0 ? " word" : "word") + std::to_string(i);
  EXPECT_GT(lines(words).size(), 3u);
  for (const std::string& line : lines(words)) all += (all.empty() ? "" : " ") + line;
  EXPECT_EQ(all, words);
  std::string one;
  for (int i = 0; i < 100; ++i) one += "\u00e9";  // a word without spaces
  std::string whole;
  EXPECT_GT(lines(one).size(), 1u);
  for (const std::string& line : lines(one)) whole += line;
  EXPECT_EQ(whole, one);
}

TEST(Ticks, RoundNumbers) {
  using Labels = std::vector<std::string>;
  EXPECT_EQ(labels(linear_ticks(0.0, 1.0, 5)), (Labels{"0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(labels(linear_ticks(-5.0, 5.0, 5)), (Labels{"−4", "−2", "0", "2", "4"}));
  EXPECT_EQ(labels(linear_ticks(0.0, 20000.0, 4)), (Labels{"0", "5k", "10k", "15k", "20k"}));
  EXPECT_EQ(labels(linear_ticks(0.0, 3.0, 8, true)), (Labels{"0", "1", "2", "3"}));
  EXPECT_EQ(labels(log_ticks(0.01, 100.0, 5)), (Labels{"0.01", "0.1", "1", "10", "100"}));
  EXPECT_EQ(labels(log_ticks(0.5, 20.0, 6)), (Labels{"0.5", "1", "2", "5", "10", "20"}));
  EXPECT_TRUE(linear_ticks(1.0, 1.0, 5).empty());
}

TEST(Ticks, NeverCrowdedNeverOutside) {
  for (double low : {1e-30, 1e-5, 0.3, 7.0, 1e12}) {
    for (double ratio : {1.001, 1.7, 10.0, 1e3, 1e9, 1e40}) {
      for (const auto& ticks :
           {log_ticks(low, low * ratio, 5), linear_ticks(low, low * ratio, 5)}) {
        EXPECT_LE(ticks.size(), 8u);
        EXPECT_GE(ticks.size(), 1u);
        for (const Tick& tick : ticks) {
          EXPECT_GE(tick.value, low - 1e-6 * low * ratio);
          EXPECT_LE(tick.value, low * ratio * (1.0 + 1e-6));
          EXPECT_FALSE(tick.label.empty());
        }
      }
    }
  }
}

TEST(Ticks, LongLabelsAtTheEndsOfTheAxisAreInsideTheFigure) {
  svg::Plot plot;
  // Without tick labels, the left margin is narrower than half a label.
  plot.y.tick_labels = false;
  plot.x.low = 0.0;
  plot.x.high = 1.0;
  plot.x.ticks = {{0.0, "0.0000"}, {1.0, "1.0000"}};
  svg::Grid grid;
  grid.rows = {{plot}};
  const std::string text = svg::render(grid);
  const auto number_after = [&](std::string_view words, std::size_t from) {
    const std::size_t at = text.find(words, from);
    EXPECT_NE(at, std::string::npos) << words;
    return at == std::string::npos ? NAN : std::atof(text.c_str() + at + words.size());
  };
  const double width = number_after("width=\"", 0);
  const double left = number_after("translate(", 0);
  const std::size_t ticks = text.find("class=\"ticks\"");
  ASSERT_NE(ticks, std::string::npos);
  const double first = left + number_after("<text x=\"", ticks);
  const double last = left + number_after("<text x=\"", text.find("0.0000", ticks));
  const double half = 0.5 * 6.0 * 6.0;  // six characters of at least six pixels each
  EXPECT_GE(first - half, 0.0);
  EXPECT_LE(last + half, width);
  EXPECT_GT(last - first, 0.5 * width);
}

TEST(Number, IsShort) {
  EXPECT_EQ(number(0.0), "0");
  EXPECT_EQ(number(0.12345), "0.123");
  EXPECT_EQ(number(-2.5), "−2.5");
  EXPECT_EQ(number(12345.0), "12.3k");
  EXPECT_EQ(number(3e-7), "3·10⁻⁷");
  EXPECT_EQ(number(NAN), "–");
}

TEST(Escape, LeavesNoMarkup) {
  EXPECT_EQ(escape("a<b>&\"'\x01"), "a&lt;b&gt;&amp;&quot;&#39;\xef\xbf\xbd");
}

}  // namespace
}  // namespace kshot::svg
