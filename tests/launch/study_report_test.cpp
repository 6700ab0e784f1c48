// The page of a study: made points with a known law, and studies that cannot bear one.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "launch/report/report_page.hpp"
#include "launch/study/table.hpp"
#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct MadePoint {
  std::string set;
  double size, tokens;
  std::int64_t experts;
  double granularity;
};

// L = 1.8 + 480 / N^0.35 + 2100 / D^0.37, less for experts, with a pattern of 0.1 % as noise.
double loss_of(const MadePoint& point, std::size_t index) {
  const double noise = 1 + 1e-3 * std::sin(7.0 * static_cast<double>(index));
  const double routed = point.experts > 1 ? 0.97 - 0.01 * std::log2(point.granularity) : 1.0;
  return noise *
         (1.8 + routed * 480 / std::pow(point.size, 0.35) + 2100 / std::pow(point.tokens, 0.37));
}

void add_point(Table& points, const MadePoint& point, std::size_t index) {
  points.add_row();
  points.set("point", point.set + "-" + std::to_string(index));
  points.set("set", point.set);
  points.set("status", std::string("done"));
  points.set("reason", std::string());
  points.set("num_ranks", std::int64_t{1} << (index % 3));
  points.set("num_parameters", static_cast<std::int64_t>(point.size * (point.experts > 1 ? 4 : 1)));
  points.set("num_active_parameters", static_cast<std::int64_t>(point.size));
  points.set("num_experts", point.experts);
  points.set("top_k", std::int64_t{point.experts > 1 ? 2 : 1});
  points.set("granularity", point.granularity);
  points.set("num_tokens", static_cast<std::int64_t>(point.tokens));
  points.set("flops", 6 * point.size * point.tokens);
  points.set("loss", loss_of(point, index));
  points.set("loss_kind", std::string("validation"));
  points.set("config.model.hidden", static_cast<std::int64_t>(index));
}

void write_study(const std::string& path, const std::vector<MadePoint>& made, int num_steps) {
  Table points, curves, head, repeats, validation;
  for (std::size_t i = 0; i < made.size(); ++i) {
    add_point(points, made[i], i);
    for (int step = 1; step <= num_steps; ++step) {
      curves.add_row();
      curves.set("point", static_cast<std::int64_t>(i));
      curves.set("step", static_cast<double>(step));
      curves.set("cross_entropy", loss_of(made[i], i) + 3.0 / step);
      curves.set("num_tokens", made[i].tokens * step / num_steps);
      curves.set("step_seconds", 0.1);
      curves.set("tokens_per_second", 1e5);
      curves.set("model_flops_per_second", 1e10);
      curves.set("load_max_over_mean", 1.0 + 1.0 / step);
    }
    validation.add_row();
    validation.set("point", static_cast<std::int64_t>(i));
    validation.set("step", std::int64_t{num_steps});
    validation.set("validation_loss", loss_of(made[i], i));
    repeats.add_row();
    for (const char* name : {"median_loss", "least_loss", "largest_loss"})
      repeats.set(name, loss_of(made[i], i));
    repeats.set("std_loss", 0.001);
    repeats.set("set", made[i].set);
    repeats.set("first_point", static_cast<std::int64_t>(i));
    repeats.set("num_repeats", std::int64_t{1});
  }
  head.add_row();
  head.set("name", std::string("<script>made</script>"));
  head.set("command", std::string("switchyard sweep made.yaml --local"));
  head.set("text", std::string("study: {name: made}\n"));
  head.set("config_text", std::string("model: {hidden: 64}\n"));
  head.set("noise_source", std::string("assumed"));
  head.set("effect", 0.01);
  head.set("noise", 0.002);
  hdf5::File file = hdf5::File::create(path);
  file.set_attribute("/", "format", "switchyard study");
  write_table(file, "study", head);
  write_table(file, "points", points);
  write_table(file, "curves", curves);
  write_table(file, "validation", validation);
  write_table(file, "repeats", repeats);
  file.close_synced();
}

std::vector<MadePoint> many_points() {
  std::vector<MadePoint> made;
  for (const std::string set : {"dense", "moe"})
    for (int size = 0; size < 5; ++size)
      for (int data = 0; data < 5; ++data)
        for (const double granularity : {1.0, 2.0, 4.0, 8.0})
          made.push_back({set, 1e6 * std::pow(2.0, size), 2e7 * std::pow(2.1, data),
                          set == "moe" ? 8 : 1, set == "moe" ? granularity : 1});
  return made;
}

TEST(StudyReport, ShowsTheLawThatThePointsFollow) {
  const TemporaryFolder folder;
  write_study(folder / "study.h5", many_points(), 50);
  const report::StudyData study = report::read_study(folder / "study.h5");
  ASSERT_EQ(study.points.size(), 200U);
  EXPECT_EQ(study.points[3].steps.size(), 50U);
  EXPECT_EQ(study.points[3].evaluations.size(), 1U);
  EXPECT_EQ(study.points[3].value_of("model.hidden"), "3");
  const auto started = std::chrono::steady_clock::now();
  const std::string page = report::study_page(study, "switchyard report study.h5");
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  EXPECT_LT(seconds, 5.0);
  EXPECT_LT(page.size(), 5'000'000U);
  for (const char* id : {"loss-by-size", "loss-by-data", "loss-by-granularity", "frontier-loss",
                         "frontier-size", "residuals", "loss-by-step", "loss-by-flops"})
    EXPECT_TRUE(has(page, std::string("<figure id=\"") + id + "\"")) << id;
  EXPECT_TRUE(has(page, "the laws at each median D"));
  EXPECT_TRUE(has(page, "class=\"band "));
  EXPECT_TRUE(has(page, "dense: L = E + A / N^alpha + B / D^beta"));
  EXPECT_TRUE(has(page, "arXiv 2203.15556"));
  EXPECT_TRUE(has(page, "of the largest compute: mean error 0"));
  EXPECT_FALSE(has(page, "<script>made"));
  EXPECT_TRUE(has(page, "Differences asked for: 0.01"));
}

TEST(StudyReport, SaysWhyThereIsNoLaw) {
  const TemporaryFolder folder;
  std::vector<MadePoint> one_budget;
  for (int size = 0; size < 12; ++size)
    one_budget.push_back({"dense", 1e6 * std::pow(1.3, size), 1e8 / std::pow(1.3, size), 1, 1});
  write_study(folder / "study.h5", one_budget, 3);
  const std::string page = report::study_page(report::read_study(folder / "study.h5"), "");
  EXPECT_TRUE(has(page, "No law of dense: "));
  EXPECT_TRUE(has(page, "add runs of other budgets"));
  EXPECT_TRUE(has(page, "The study has no finished run with experts."));
  // Without points there is a page all the same.
  write_study(folder / "empty.h5", {}, 0);
  EXPECT_TRUE(has(report::study_page(report::read_study(folder / "empty.h5"), ""), "</html>"));
}

TEST(StudyReport, RefusesOtherFiles) {
  const TemporaryFolder folder;
  write_contents(folder / "text", "no study");
  EXPECT_THROW(report::read_study(folder / "text"), Error);
  hdf5::File::create(folder / "other.h5").close_synced();
  EXPECT_THROW(report::read_study(folder / "other.h5"), DataError);
}

}  // namespace
}  // namespace switchyard::test
