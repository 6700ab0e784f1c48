#include "launch/report/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/report/html.hpp"
#include "launch/report/scale.hpp"

namespace switchyard::report {
namespace {

// A figure's units; the frame of its values.
constexpr double width = 480, height = 300;
constexpr double left = 52, right = 470, top = 26, bottom = 258;
constexpr std::size_t num_colors = 8;

// The class of a line (s) or of an area (f).
std::string color_class(char kind, std::size_t color) {
  return fmt::format("{}{}{}", kind, color % num_colors,
                     color / num_colors % 2 == 1 ? " pale" : "");
}

std::string figure(const Chart& chart, std::string_view inside) {
  return fmt::format("<figure id=\"{}\"><figcaption>{}</figcaption>{}{}</figure>\n", chart.id,
                     escape(chart.caption), chart.note.empty() ? "" : paragraph(chart.note),
                     inside);
}

std::string empty_figure(const Chart& chart, const std::string& why) {
  return figure({.id = chart.id, .caption = chart.caption, .note = {}, .x = {}, .y = {}},
                paragraph(why));
}

std::string svg(const Chart& chart, double of_height, std::string_view inside) {
  return fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
                     width, of_height, escape(chart.caption), inside);
}

std::string text_at(double x, double y, std::string_view anchor, std::string_view text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escape(text));
}

std::string key(const std::vector<std::pair<std::string, std::size_t>>& entries) {
  if (entries.empty()) return {};
  std::string out = "<div class=\"key\">";
  for (const auto& [name, color] : entries)
    out +=
        fmt::format("<span><i class=\"{}\"></i>{}</span>", color_class('f', color), escape(name));
  return out + "</div>\n";
}

std::string x_marks(const Scale& scale, const std::string& label, double from, double to) {
  std::string out;
  for (const double mark : scale.marks()) {
    const double x = scale.place(mark);
    out += fmt::format("<path class=\"grid\" d=\"M{0:.1f} {1}V{2}\"/>\n", x, from, to);
    out += text_at(x, to + 16, x > right - 12 ? "end" : "middle", mark_text(mark));
  }
  return out + text_at((left + right) / 2, to + 34, "middle", label);
}

std::string y_marks(const Scale& scale, const std::string& label) {
  std::string out;
  for (const double mark : scale.marks()) {
    const double y = scale.place(mark);
    out += fmt::format("<path class=\"grid\" d=\"M{0} {2:.1f}H{1}\"/>\n", left, right, y);
    out += text_at(left - 5, y + 4, "end", mark_text(mark));
  }
  return out + text_at(2, 14, "start", label);
}

std::string frame() {
  return fmt::format("<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n", left,
                     top, right - left, bottom - top);
}

struct Axes {
  Scale x;
  Scale y;
  bool takes(const Point& point) const { return x.takes(point.x) && y.takes(point.y); }
  std::string place(const Point& point) const {
    return fmt::format("{:.1f} {:.1f}", x.place(point.x), y.place(point.y));
  }
};

// The path through the points; broken where one cannot be drawn.
std::string path_of(const Axes& axes, const std::vector<Point>& points) {
  std::string path;
  bool goes_on = false;
  for (const Point& point : points) {
    const bool is_drawn = axes.takes(point);
    if (is_drawn) {
      path += goes_on ? 'L' : 'M';
      path += axes.place(point);
    }
    goes_on = is_drawn;
  }
  return path;
}

std::string drawn(const Axes& axes, const Series& series) {
  const std::string name = series.name.empty() ? "" : "<title>" + escape(series.name) + "</title>";
  const auto num_drawn =
      std::ranges::count_if(series.points, [&](const Point& point) { return axes.takes(point); });
  // A line of one point would not be seen.
  if (series.mark != Mark::dots && num_drawn > 1)
    return fmt::format("<path class=\"l {}{}\" d=\"{}\">{}</path>\n",
                       color_class('s', series.color), series.mark == Mark::dashed ? " dash" : "",
                       path_of(axes, series.points), name);
  std::string out = fmt::format("<g class=\"{}\">{}", color_class('f', series.color), name);
  for (const Point& point : series.points)
    if (axes.takes(point))
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>", axes.x.place(point.x),
                         axes.y.place(point.y));
  return out + "</g>\n";
}

std::string drawn(const Axes& axes, const Band& band) {
  std::vector<Point> around = band.lower;
  around.insert(around.end(), band.upper.rbegin(), band.upper.rend());
  std::erase_if(around, [&](const Point& point) { return !axes.takes(point); });
  if (around.size() < 3) return {};
  return fmt::format("<path class=\"band {}\" d=\"{}Z\"/>\n", color_class('f', band.color),
                     path_of(axes, around));
}

Axes axes_for(const Chart& chart, const std::vector<Point>& points) {
  std::vector<double> xs, ys;
  for (const Point& point : points) {
    const bool shown =
        (!chart.x.logarithmic || point.x > 0) && (!chart.y.logarithmic || point.y > 0);
    if (!shown || !std::isfinite(point.x) || !std::isfinite(point.y)) continue;
    xs.push_back(point.x);
    ys.push_back(point.y);
  }
  Axes axes{Scale(xs, chart.x.logarithmic, chart.x.from_zero, left, right),
            Scale(ys, chart.y.logarithmic, chart.y.from_zero, bottom, top)};
  if (chart.x.whole) axes.x.keep_whole_marks();
  return axes;
}

std::string with_axes(const Chart& chart, const Axes& axes, std::string_view inside) {
  return svg(chart, height,
             x_marks(axes.x, chart.x.label, top, bottom) + y_marks(axes.y, chart.y.label) +
                 std::string(inside) + frame());
}

bool is_used(const Layer& layer) {
  return std::ranges::any_of(layer.values, [](double value) { return value > 0; });
}

double value_at(const Layer& layer, std::size_t index) {
  const double value = index < layer.values.size() ? layer.values[index] : 0;
  return std::isfinite(value) && value > 0 ? value : 0;
}

}  // namespace

std::string line_figure(const Chart& chart, const std::vector<Series>& series,
                        const std::vector<Band>& bands, const std::string& if_empty) {
  std::vector<Point> all;
  for (const Series& one : series) all.insert(all.end(), one.points.begin(), one.points.end());
  for (const Band& band : bands) {
    all.insert(all.end(), band.lower.begin(), band.lower.end());
    all.insert(all.end(), band.upper.begin(), band.upper.end());
  }
  const Axes axes = axes_for(chart, all);
  if (std::ranges::none_of(all, [&](const Point& point) { return axes.takes(point); }))
    return empty_figure(chart, if_empty);
  std::string inside;
  for (const Band& band : bands) inside += drawn(axes, band);
  std::vector<std::pair<std::string, std::size_t>> names;
  for (const Series& one : series) {
    inside += drawn(axes, one);
    if (!one.name.empty()) names.emplace_back(one.name, one.color);
  }
  return figure(chart, with_axes(chart, axes, inside) + key(names));
}

std::string stacked_areas(const Chart& chart, const std::vector<double>& x,
                          const std::vector<Layer>& layers, const std::string& if_empty) {
  std::vector<double> below(x.size(), 0);
  for (const Layer& layer : layers)
    for (std::size_t i = 0; i < x.size(); ++i) below[i] += value_at(layer, i);
  std::vector<Point> tops;
  for (std::size_t i = 0; i < x.size(); ++i) tops.push_back({x[i], below[i]});
  if (x.empty() || std::ranges::none_of(layers, is_used)) return empty_figure(chart, if_empty);
  const Axes axes = axes_for(chart, tops);
  std::string inside;
  std::vector<std::pair<std::string, std::size_t>> names;
  std::fill(below.begin(), below.end(), 0);
  for (std::size_t color = 0; color < layers.size(); ++color) {
    if (!is_used(layers[color])) continue;
    std::vector<Point> lower, upper;
    for (std::size_t i = 0; i < x.size(); ++i) {
      lower.push_back({x[i], below[i]});
      below[i] += value_at(layers[color], i);
      upper.push_back({x[i], below[i]});
    }
    upper.insert(upper.end(), lower.rbegin(), lower.rend());
    inside +=
        fmt::format("<path class=\"{}\" d=\"{}Z\"><title>{}</title></path>\n",
                    color_class('f', color), path_of(axes, upper), escape(layers[color].name));
    names.emplace_back(layers[color].name, color);
  }
  return figure(chart, with_axes(chart, axes, inside) + key(names));
}

std::string stacked_bars(const Chart& chart, const std::vector<std::string>& names,
                         const std::vector<Layer>& layers, const std::string& if_empty) {
  std::vector<double> totals(names.size(), 0);
  for (const Layer& layer : layers)
    for (std::size_t i = 0; i < names.size(); ++i) totals[i] += value_at(layer, i);
  if (std::ranges::none_of(layers, is_used)) return empty_figure(chart, if_empty);
  // The name stands above its bar, so that long ones have room.
  constexpr double row = 34, bar = 14, begin = 8, first = 6;
  const double end = begin + row * static_cast<double>(names.size());
  const Scale scale(totals, false, true, first, right);
  std::string inside = x_marks(scale, chart.x.label, begin, end);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const double y = begin + row * static_cast<double>(i);
    inside += text_at(first, y + 12, "start", names[i]);
    double so_far = 0;
    for (std::size_t color = 0; color < layers.size(); ++color) {
      const double value = value_at(layers[color], i);
      if (value == 0) continue;
      const double from = scale.place(so_far);
      so_far += value;
      inside += fmt::format(
          "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.2f}\" "
          "height=\"{}\"><title>{}: {:.4g}</title></rect>\n",
          color_class('f', color), from, y + 17, scale.place(so_far) - from, bar,
          escape(layers[color].name), value);
    }
  }
  std::vector<std::pair<std::string, std::size_t>> entries;
  for (std::size_t color = 0; color < layers.size(); ++color)
    if (is_used(layers[color])) entries.emplace_back(layers[color].name, color);
  return figure(chart, svg(chart, end + 42, inside) + key(entries));
}

std::string heat_map(const Chart& chart, const HeatMap& map, const std::string& if_empty) {
  double largest = map.least;
  std::size_t num_columns = 0;
  for (const std::vector<double>& row : map.values) {
    num_columns = std::max(num_columns, row.size());
    for (const double value : row)
      if (std::isfinite(value)) largest = std::max(largest, value);
  }
  if (num_columns == 0) return empty_figure(chart, if_empty);
  const auto num_rows = static_cast<double>(map.values.size());
  const double row_height = std::clamp(200 / num_rows, 3.0, 24.0);
  const double end = top + row_height * num_rows;
  const double cell = (right - left) / static_cast<double>(num_columns);
  std::string inside = text_at(2, 14, "start", chart.y.label);
  // Names of rows that have no room are left out.
  const auto every = static_cast<std::size_t>(std::ceil(14 / row_height));
  for (std::size_t row = 0; row < map.values.size(); ++row) {
    const double y = top + row_height * static_cast<double>(row);
    if (row % every == 0 && row < map.row_names.size())
      inside += text_at(left - 5, y + row_height / 2 + 4, "end", map.row_names[row]);
    for (std::size_t column = 0; column < map.values[row].size(); ++column) {
      const double value = map.values[row][column];
      if (!std::isfinite(value)) continue;
      const double share = largest > map.least ? (value - map.least) / (largest - map.least) : 0;
      inside += fmt::format(
          "<rect class=\"f1\" opacity=\"{:.2f}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" "
          "height=\"{:.1f}\"/>",
          0.04 + 0.96 * std::clamp(share, 0.0, 1.0), left + cell * static_cast<double>(column), y,
          cell, row_height);
    }
    inside += '\n';
  }
  for (const double mark : {map.x_first, map.x_last})
    inside += text_at(mark == map.x_first ? left : right, end + 16,
                      mark == map.x_first ? "start" : "end", mark_text(mark));
  inside += text_at((left + right) / 2, end + 16, "middle", chart.x.label);
  Chart told = chart;
  told.note += fmt::format("{}Palest: {:.3g}; strongest: {:.3g}.", told.note.empty() ? "" : " ",
                           map.least, largest);
  return figure(told, svg(chart, end + 24, inside));
}

std::vector<Point> averaged(const std::vector<Point>& points, std::size_t most) {
  std::vector<Point> finite = points;
  std::erase_if(finite, [](const Point& point) {
    return !std::isfinite(point.x) || !std::isfinite(point.y);
  });
  if (finite.size() <= most) return finite;
  std::vector<Point> means;
  for (std::size_t stretch = 0; stretch < most; ++stretch) {
    const std::size_t begin = finite.size() * stretch / most;
    const std::size_t end = finite.size() * (stretch + 1) / most;
    Point sum;
    for (std::size_t i = begin; i < end; ++i) sum = {sum.x + finite[i].x, sum.y + finite[i].y};
    const auto count = static_cast<double>(end - begin);
    means.push_back({sum.x / count, sum.y / count});
  }
  return means;
}

std::vector<Point> thinned(const std::vector<Point>& points, std::size_t most) {
  if (points.size() <= most) return points;
  const std::size_t num_stretches = std::max<std::size_t>(most / 4, 1);
  std::vector<Point> kept;
  for (std::size_t stretch = 0; stretch < num_stretches; ++stretch) {
    const std::size_t begin = points.size() * stretch / num_stretches;
    const std::size_t end = points.size() * (stretch + 1) / num_stretches;
    std::size_t lowest = begin, highest = begin;
    for (std::size_t i = begin; i < end; ++i) {
      if (points[i].y < points[lowest].y) lowest = i;
      if (points[i].y > points[highest].y) highest = i;
    }
    std::vector<std::size_t> chosen = {begin, lowest, highest, end - 1};
    std::ranges::sort(chosen);
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    for (const std::size_t i : chosen) kept.push_back(points[i]);
  }
  return kept;
}

}  // namespace switchyard::report
