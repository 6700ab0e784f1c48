#include "trainer/run/meters/metrics.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

TEST(Metrics, NumbersReadBackExactly) {
  for (const double value : {0.1, 1.0 / 3.0, 3.4121234567890123, 5e-324, 1.7976931348623157e308,
                             6.02214076e23, -0.0, 1.0}) {
    StepMetrics metrics;
    metrics.loss = value;
    const nlohmann::json json = nlohmann::json::parse(to_json(metrics));
    EXPECT_EQ(std::bit_cast<std::uint64_t>(json["loss"].get<double>()),
              std::bit_cast<std::uint64_t>(value))
        << to_json(metrics);
  }
}

TEST(Metrics, NonFiniteNumbersAreStrings) {
  StepMetrics metrics;
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.z_loss = std::numeric_limits<double>::infinity();
  metrics.grad_norm = -std::numeric_limits<double>::infinity();
  const nlohmann::json json = nlohmann::json::parse(to_json(metrics));
  EXPECT_EQ(json["loss"], "nan");
  EXPECT_EQ(json["z_loss"], "inf");
  EXPECT_EQ(json["grad_norm"], "-inf");
}

TEST(Metrics, FieldsComeInTheOrderOfTheDesign) {
  const auto json = nlohmann::ordered_json::parse(to_json(StepMetrics{}));
  std::vector<std::string> names;
  for (const auto& [name, value] : json.items()) names.push_back(name);
  const std::vector<std::string> wanted{"step",
                                        "loss",
                                        "cross_entropy",
                                        "balance_loss",
                                        "z_loss",
                                        "grad_norm",
                                        "learning_rate",
                                        "num_tokens",
                                        "step_seconds",
                                        "tokens_per_second",
                                        "model_flops_per_second",
                                        "memory_bytes",
                                        "max_rows",
                                        "load_max_over_mean",
                                        "dropped_fraction"};
  EXPECT_EQ(names, wanted);
}

TEST(Metrics, PartsAndLayersAreThereWhereTheyAreKnown) {
  StepMetrics metrics;
  metrics.load_by_layer = {1.0, 2.34567};
  metrics.part_seconds.emplace();
  (*metrics.part_seconds)[static_cast<std::size_t>(Part::attention)] = 0.01234567;
  (*metrics.part_seconds)[static_cast<std::size_t>(Part::spill)] = 2;
  const auto json = nlohmann::ordered_json::parse(to_json(metrics));
  EXPECT_EQ(json["load_by_layer"], nlohmann::ordered_json({1, 2.346}));
  EXPECT_EQ(json["part_seconds"], nlohmann::ordered_json({{"attention", 0.01235}, {"spill", 2}}));
}

TEST(Metrics, ALayersRowHasWhatIsKnown) {
  const LayerMetrics bare{.step = 20, .layer = 3, .load_percent = {150, 50}};
  EXPECT_EQ(to_json(bare),
            "{\"event\": \"layer\", \"step\": 20, \"layer\": 3, \"load_max_over_mean\": 1, "
            "\"load_variation\": 0, \"idle_experts\": 0, \"dropped_fraction\": 0, "
            "\"other_nodes_fraction\": 0, \"load_percent\": [150, 50]}");
  LayerMetrics full = bare;
  full.entropy = 1.23456;
  full.expert_seconds = 0.5;
  full.exchange_seconds = 0.25;
  full.wait_seconds = 0;
  const auto json = nlohmann::ordered_json::parse(to_json(full));
  EXPECT_EQ(json["router_entropy"], 1.235);
  EXPECT_EQ(json["expert_seconds"], 0.5);
  EXPECT_EQ(json["exchange_seconds"], 0.25);
  EXPECT_EQ(json["wait_seconds"], 0);
}

// They are of their step, and not of a restart, which stays.
TEST(Metrics, ResumeCutsTheRowsOfLayersWithTheirStep) {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  {
    MetricsWriter writer(path, 0);
    writer.write(StepMetrics{.step = 1});
    writer.write(LayerMetrics{.step = 1, .load_percent = {100}});
    writer.write(StepMetrics{.step = 2});
    writer.write(LayerMetrics{.step = 2, .load_percent = {100}});
  }
  EXPECT_EQ(MetricsWriter(path, 1).num_cut(), 2);
  EXPECT_EQ(last_step_in(path), 1);
}

TEST(Metrics, ResumeCutsTheLinesAfterTheRestoredStep) {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  {
    MetricsWriter writer(path, 0);
    for (std::int64_t step = 1; step <= 6; ++step) {
      writer.write(StepMetrics{.step = step});
      if (step % 2 == 0) writer.write(EvaluationMetrics{.step = step, .validation_loss = 2.5});
    }
    // Every line is on its way at once: another reader sees it while the writer lives.
    const std::string text = contents_of(path);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 9);
  }
  std::string before = contents_of(path);
  write_contents(path, before + "{\"step\": 7, \"lo");  // killed in the middle of a line
  {
    MetricsWriter writer(path, 4);
    EXPECT_EQ(writer.num_cut(), 4);  // steps 5 and 6, an evaluation, the broken line
    writer.write(StepMetrics{.step = 5, .loss = 9});
  }
  std::string wanted = before.substr(0, before.find("{\"step\": 5"));
  EXPECT_EQ(contents_of(path), wanted + to_json(StepMetrics{.step = 5, .loss = 9}) + "\n");
}

TEST(Metrics, ALineWithoutItsEndIsCutEvenIfItReadsWell) {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  write_contents(path, "{\"step\": 1}\n{\"step\": 2}");
  MetricsWriter writer(path, 2);
  EXPECT_EQ(contents_of(path), "{\"step\": 1}\n");
}

TEST(Metrics, AFreshStartEmptiesTheFile) {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  write_contents(path, "{\"step\": 0}\n{\"step\": 1}\n");
  MetricsWriter writer(path, 0);
  EXPECT_EQ(contents_of(path), "");
}

TEST(Metrics, RestartsStayWhenTheirStepsAreCut) {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  const RestartMetrics restart{.restarts = 2,
                               .step = 5,
                               .lost_steps = 3,
                               .lost_seconds = 41.24,
                               .reason = "rank 1: \"disk\" full"};
  const std::string line = to_json(restart);
  EXPECT_EQ(line,
            "{\"event\": \"restart\", \"restarts\": 2, \"step\": 5, \"lost_steps\": 3, "
            "\"lost_seconds\": 41.2, \"reason\": \"rank 1: \\\"disk\\\" full\"}");
  EXPECT_EQ(nlohmann::json::parse(line)["reason"], restart.reason);
  {
    MetricsWriter writer(path, 0);
    for (std::int64_t step = 1; step <= 5; ++step) writer.write(StepMetrics{.step = step});
    writer.write(restart);
  }
  EXPECT_EQ(last_step_in(path), 5);
  { MetricsWriter writer(path, 1); }  // a damaged checkpoint: an earlier one is taken
  EXPECT_EQ(contents_of(path), to_json(StepMetrics{.step = 1}) + "\n" + line + "\n");
  { MetricsWriter writer(path, 0); }
  EXPECT_EQ(contents_of(path), line + "\n");
  EXPECT_EQ(last_step_in(path), 0);
  { MetricsWriter writer(path, 0, RestartLines::cut); }
  EXPECT_EQ(contents_of(path), "");
}

TEST(Metrics, NoSuchFolderIsAnIoError) {
  EXPECT_THROW(MetricsWriter("/nonexistent/metrics.jsonl", 0), IoError);
}

}  // namespace
}  // namespace switchyard::test
