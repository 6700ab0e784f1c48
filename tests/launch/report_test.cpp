#include <gtest/gtest.h>

#include <cmath>

#include "launch/report/chart.hpp"
#include "launch/report/html.hpp"
#include "launch/report/report_page.hpp"
#include "launch/report/scale.hpp"
#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

using namespace report;  // NOLINT: all of it is under test

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Report, TextsOfOthersAreNoMarkup) {
  EXPECT_EQ(escape("<b a=\"1\" c='2'>&amp;"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;");
  EXPECT_EQ(escape("a\tb\nc"), "a\tb\nc");
  EXPECT_EQ(escape("\x01\xff"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_TRUE(has(table_html({.heads = {"<i>"}, .rows = {{"</td>"}}}), "&lt;i&gt;"));
  EXPECT_FALSE(has(table_html({.heads = {"<i>"}, .rows = {{"</td><script>"}}}), "<script>"));
}

TEST(Report, MarksOfAnAxisAreRoundAndInside) {
  const Scale scale({3, 97.5}, false, true, 0, 100);
  EXPECT_EQ(scale.marks(), (std::vector<double>{0, 20, 40, 60, 80, 100}));
  EXPECT_EQ(scale.place(0), 0);
  const Scale decades({2e3, 5e8}, true, false, 0, 100);
  EXPECT_EQ(decades.marks(), (std::vector<double>{1e4, 1e5, 1e6, 1e7, 1e8}));
  EXPECT_EQ(Scale({17e6, 450e6}, true, false, 0, 100).marks(),
            (std::vector<double>{2e7, 5e7, 1e8, 2e8}));
  EXPECT_FALSE(decades.takes(0));
  EXPECT_FALSE(decades.takes(std::nan("")));
  // Downwards, as a figure's y goes.
  const Scale down({0, 10}, false, true, 200, 0);
  EXPECT_GT(down.place(1), down.place(2));
  // One value, none, and values that are equal still give an axis.
  for (const std::vector<double>& values : {std::vector<double>{}, {0}, {5, 5}, {-3}})
    for (const bool logarithmic : {false, true}) {
      const Scale one(values, logarithmic, false, 0, 100);
      EXPECT_GE(one.marks().size(), 1U);
      for (const double mark : one.marks()) {
        EXPECT_GE(one.place(mark), -1e-6);
        EXPECT_LE(one.place(mark), 100 + 1e-6);
      }
    }
}

TEST(Report, NumbersOfMarksAreShort) {
  EXPECT_EQ(mark_text(0), "0");
  EXPECT_EQ(mark_text(0.25), "0.25");
  EXPECT_EQ(mark_text(2000), "2000");
  EXPECT_EQ(mark_text(20000), "20k");
  EXPECT_EQ(mark_text(1e6), "1M");
  EXPECT_EQ(mark_text(-1.5e9), "-1.5G");
  EXPECT_EQ(mark_text(1e18), "1E");
  EXPECT_EQ(mark_text(3e-5), "3e-05");
}

TEST(Report, ThinnedCurvesKeepTheirExtremes) {
  std::vector<Point> points;
  for (int i = 0; i < 1000; ++i) points.push_back({static_cast<double>(i), 1});
  points[501].y = 9;
  points[502].y = -9;
  const std::vector<Point> thin = thinned(points, 40);
  EXPECT_LE(thin.size(), 40U);
  double least = 0, most = 0;
  for (const Point& point : thin) {
    least = std::min(least, point.y);
    most = std::max(most, point.y);
  }
  EXPECT_EQ(least, -9);
  EXPECT_EQ(most, 9);
  const std::vector<Point> means = averaged(points, 10);
  ASSERT_EQ(means.size(), 10U);
  EXPECT_EQ(means[0].x, 49.5);
  EXPECT_EQ(means[5].y, 1.0 + (9 - 9 - 2) / 100.0);
}

TEST(Report, AFigureLeavesOutWhatCannotBeDrawn) {
  const Chart chart{.id = "a", .caption = "A<", .note = {}, .x = {"x"}, .y = {"y", true}};
  EXPECT_TRUE(has(line_figure(chart, {{"s", {{1, 0}, {2, NAN}}}}, {}, "nothing <here>"),
                  "nothing &lt;here&gt;"));
  const std::string figure =
      line_figure(chart, {{"s&", {{1, 1}, {2, 2}, {3, NAN}, {4, 4}, {5, 5}}}}, {}, "");
  EXPECT_TRUE(has(figure, "A&lt;"));
  EXPECT_TRUE(has(figure, "s&amp;"));
  EXPECT_FALSE(has(figure, "nan"));
  // The line breaks where a value is missing: two begins.
  const std::string path = figure.substr(figure.find("class=\"l "));
  const std::string d = path.substr(0, path.find("</path>"));
  EXPECT_EQ(std::count(d.begin(), d.end(), 'M'), 2);
}

// What is damaged or missing is named; the page is there all the same.
TEST(Report, APageSaysWhatIsMissing) {
  const TemporaryFolder folder;
  EXPECT_THROW(read_run(folder.path()), DataError);
  write_contents(folder / "metrics.jsonl",
                 "{\"step\": 1, \"loss\": 2.0, \"cross_entropy\": 2.0, \"step_seconds\": 0.5}\n"
                 "{\"step\": 2, \"loss\": \"nan\", \"cross_entropy\": \"nan\"}\n"
                 "{\"step\": 3, \"lo\n"
                 "[1]\n"
                 "{\"event\": \"restart\", \"step\": 1, \"lost_steps\": 1, \"lost_seconds\": 7.5, "
                 "\"reason\": \"<img src=x>\"}\n");
  write_contents(folder / "record.json", "{\"command\": 7, \"planned\": [], \"hosts\": {}}");
  write_contents(folder / "config.yaml", "model: [}\n");
  const RunData run = read_run(folder.path() + "/");
  EXPECT_EQ(run.name, folder.path());
  ASSERT_EQ(run.steps.size(), 2U);
  EXPECT_EQ(run.steps[0].seconds, 0.5);
  EXPECT_TRUE(std::isnan(run.steps[1].cross_entropy));
  ASSERT_EQ(run.restarts.size(), 1U);
  const std::string page = runs_page({run}, "switchyard report <x>");
  EXPECT_TRUE(has(page, "2 lines of metrics.jsonl cannot be read."));
  EXPECT_TRUE(has(page, "config.yaml cannot be read as a configuration."));
  EXPECT_TRUE(has(page, "No run here has recorded it"));
  EXPECT_TRUE(has(page, "under way, or killed without a word"));
  EXPECT_FALSE(has(page, "<img"));
  EXPECT_FALSE(has(page, "<x>"));
}

}  // namespace
}  // namespace switchyard::test
