// Figures as SVG, for a page's styles to colour (launch/report/html.cpp): they follow a light or a
// dark page and stay sharp. Values that are not finite, or not positive on a logarithmic axis, are
// left out. Texts are escaped here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::report {

struct Point {
  double x = 0;
  double y = 0;
};

enum class Mark : std::uint8_t { line, dashed, dots };

struct Series {
  std::string name;           // in the key; empty: not in it
  std::vector<Point> points;  // of a line: from left to right
  Mark mark = Mark::line;
  std::size_t color = 0;
};

// Between two lines: an interval.
struct Band {
  std::vector<Point> lower;
  std::vector<Point> upper;
  std::size_t color = 0;
};

struct Axis {
  std::string label;
  bool logarithmic = false;
  bool from_zero = false;  // not of a logarithmic one
  bool whole = false;      // marks are whole numbers
};

struct Chart {
  std::string id;  // of the element: letters and dashes
  std::string caption;
  std::string note;  // below the caption; may be empty
  Axis x;
  Axis y;
};

// The figure with its key. Without a point that can be drawn: the caption and `if_empty`.
std::string line_figure(const Chart& chart, const std::vector<Series>& series,
                        const std::vector<Band>& bands, const std::string& if_empty);

struct Layer {  // of a stack
  std::string name;
  std::vector<double> values;
};
// Areas over x, one on the other; layers without a value above 0 are left out.
std::string stacked_areas(const Chart& chart, const std::vector<double>& x,
                          const std::vector<Layer>& layers, const std::string& if_empty);
// One bar a name, from top to bottom, its parts side by side.
std::string stacked_bars(const Chart& chart, const std::vector<std::string>& names,
                         const std::vector<Layer>& layers, const std::string& if_empty);

// values[row][column]; rows from top to bottom, named by `row_names`. Columns lie evenly between
// x_first and x_last. Colours go from `least` (pale) to the largest value, which the note tells.
struct HeatMap {
  std::vector<std::vector<double>> values;
  std::vector<std::string> row_names;
  double x_first = 0;
  double x_last = 0;
  double least = 0;
};
std::string heat_map(const Chart& chart, const HeatMap& map, const std::string& if_empty);

// At most `most` points (8 or more) that look alike: of each stretch the first, the lowest, the
// highest and the last.
std::vector<Point> thinned(const std::vector<Point>& points, std::size_t most);
// At most `most` points: means of neighbours. What is not finite is left out before.
std::vector<Point> averaged(const std::vector<Point>& points, std::size_t most);

}  // namespace switchyard::report
