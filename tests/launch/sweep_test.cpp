// Studies: from a file to points, rules of learning rates, the power check.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "launch/study/table.hpp"
#include "launch/sweep/draft_points.hpp"
#include "launch/sweep/power.hpp"
#include "launch/sweep/study_points.hpp"
#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard {
namespace {

const std::string head = "study: {name: s, output: out, config: base.yaml}\n";

std::vector<DraftPoint> drafts_of(const std::string& sets) {
  static std::vector<StudyConfig> kept;  // drafts point into it
  kept.reserve(100);
  kept.push_back(load_study(head + sets, "study.yaml"));
  return draft_points(kept.back());
}

std::string text_of(const DraftPoint& draft) {
  std::string text;
  for (const auto& [key, value] : draft.settings) text += key + "=" + value + " ";
  return text;
}

TEST(StudyDrafts, ASetIsTheProductOfItsParts) {
  const auto drafts = drafts_of(
      "sets:\n"
      "  - name: a\n"
      "    set: {experts.top_k: 1}\n"
      "    grid: {experts.num_experts: [2, 4], model.hidden: [8, 16]}\n"
      "    list: [{train.micro_batch: 1}, {model.mixer: [{kind: window, window: 4}]}]\n"
      "    scaling: {kind: weak, ranks: [1, 3]}\n"
      "  - name: b\n");
  ASSERT_EQ(drafts.size(), 2u * 2 * 2 * 2 + 1);
  EXPECT_EQ(text_of(drafts[0]),
            "experts.top_k=1 experts.num_experts=2 model.hidden=8 train.micro_batch=1 ");
  EXPECT_EQ(text_of(drafts[15]),
            "experts.top_k=1 experts.num_experts=4 model.hidden=16 "
            "model.mixer=[{kind: window, window: 4}] ");
  EXPECT_EQ(drafts[15].ranks, 3);
  EXPECT_EQ(drafts[15].batch_factor, 3);
  EXPECT_EQ(text_of(drafts[16]), "");
}

TEST(StudyDrafts, DrawsStayWhenMoreAreAsked) {
  const auto draw = [](int num_points, int seed) {
    return drafts_of("sets:\n  - name: a\n    random: {num_points: " + std::to_string(num_points) +
                     ", seed: " + std::to_string(seed) +
                     ", draws: {optimizer.learning_rate: {from: 1.0e-4, to: 1.0e-2, log: true}, "
                     "experts.num_experts: {from: 2, to: 5}, experts.top_k: [1, 2]}}\n");
  };
  const auto few = draw(3, 1), many = draw(400, 1);
  for (std::size_t i = 0; i < few.size(); ++i) EXPECT_EQ(text_of(few[i]), text_of(many[i]));
  EXPECT_NE(text_of(draw(3, 2)[0]), text_of(few[0]));
  std::set<std::string> experts, top_k;
  std::int64_t num_low = 0;
  for (const DraftPoint& each : many) {
    const double rate = std::stod(each.settings[0].second);
    EXPECT_GE(rate, 1e-4);
    EXPECT_LE(rate, 1e-2);
    if (rate < 1e-3) ++num_low;
    experts.insert(each.settings[1].second);
    top_k.insert(each.settings[2].second);
  }
  EXPECT_NEAR(static_cast<double>(num_low), 200, 50);  // even in the logarithm: 5 deviations of 10
  EXPECT_EQ(experts, (std::set<std::string>{"2", "3", "4", "5"}));
  EXPECT_EQ(top_k, (std::set<std::string>{"1", "2"}));
}

TEST(StudyRules, LearningRates) {
  EXPECT_NEAR(learning_rate_by({.rule = RateRule::step_law}, 1e8, 1e10, 1),
              1.79 * std::pow(1e8, -0.713) * std::pow(1e10, 0.307), 1e-12);
  EXPECT_NEAR(learning_rate_by({.rule = RateRule::joint_moe}, 1e8, 1e10, 16),
              std::exp(8.39 - 0.81 * std::log(1e8) - 0.25 * std::log(16.0)), 1e-12);
  EXPECT_NEAR(
      learning_rate_by({.rule = RateRule::power, .rate = 1e-3, .size = 1e6, .exponent = -0.5}, 4e6,
                       1, 1),
      5e-4, 1e-15);
}

// The run keeps its tokens, or its budget: the steps follow from the batch.
TEST(StudyRules, BatchSizes) {
  EXPECT_NEAR(batch_tokens_by({.rule = BatchRule::step_law}, 1e10), 0.58 * std::pow(1e10, 0.571),
              1e-3);
  EXPECT_NEAR(batch_tokens_by(
                  {.rule = BatchRule::power, .batch = 4096, .tokens = 1e6, .exponent = 0.5}, 4e6),
              8192, 1e-9);
  const test::TemporaryFolder folder;
  test::write_contents(folder / "base.yaml",
                       "run: {output: x}\ndata: {path: none.h5}\n"
                       "model: {vocab_size: 64, hidden: 16, num_layers: 1, num_heads: 2, "
                       "num_kv_heads: 1, sequence_length: 8}\nexperts: {every: 0}\n"
                       "train: {global_batch: 4, num_steps: 1000}\n");
  const auto points = [&](const std::string& set) {
    return make_study(load_study("study: {name: s, output: out, config: " + (folder / "base.yaml") +
                                     ", ranks: 2}\nsets: [{name: a, batch_size: {rule: power, "
                                     "batch: 64, tokens: 8000, exponent: 0.5}, " +
                                     set + "}]\n",
                                 "study.yaml"),
                      [](const LoadedConfig&) { return 64; })
        .points;
  };
  // 32,000 tokens: batches of 64 sqrt(4) = 128 tokens, 16 sequences, 250 steps.
  const StudyPoint kept = points("set: {run.seed: 1}").front();
  EXPECT_EQ(kept.config.train.global_batch, 16);
  EXPECT_EQ(kept.config.train.num_steps, 250);
  // Whole micro-batches of both ranks: of 6 sequences the nearest to 16 is 18.
  EXPECT_EQ(points("set: {train.micro_batch: 3, train.global_batch: 12, train.num_steps: 333}")
                .front()
                .config.train.global_batch,
            18);
  const std::vector<StudyPoint> budgets =
      points("iso_flop: {budgets: [1.0e9, 4.0e9], sizes: [{model.hidden: 16}]}");
  ASSERT_EQ(budgets.size(), 2u);
  EXPECT_GT(budgets[1].config.train.global_batch, 1.5 * budgets[0].config.train.global_batch);
  for (const StudyPoint& point : budgets) {
    const double budget = &point == &budgets[0] ? 1e9 : 4e9;
    const double of_step =
        point.plan.flops_per_token * static_cast<double>(point.plan.tokens_per_step);
    EXPECT_NEAR(of_step * static_cast<double>(point.config.train.num_steps), budget, of_step / 2);
  }
  EXPECT_THROW(points("branches: {at: [10]}"), ConfigError);
  EXPECT_THROW(points("scaling: {kind: weak, ranks: [1, 2]}"), ConfigError);
}

TEST(StudyPower, RepeatsAgainstNoise) {
  // 2.8016 x 0.002 x sqrt(2 / 3)
  EXPECT_NEAR(least_visible_effect(0.002, 3), 0.0045749, 1e-6);
  EXPECT_EQ(repeats_needed(0.002, least_visible_effect(0.002, 3) * 1.0001), 3);
  EXPECT_EQ(repeats_needed(0.002, least_visible_effect(0.002, 3) * 0.9999), 4);
  const auto words = [](const std::string& more) {
    return power_text(load_study(
        "study: {name: s, output: o, config: c, " + more + "}\nsets: [{name: a}]\n", "study.yaml"));
  };
  EXPECT_EQ(words("seeds: [1]"), "");
  EXPECT_NE(words("effect: 0.01, seeds: [1, 2, 3]").find("(assumed)"), std::string::npos);
  EXPECT_EQ(words("effect: 0.01, seeds: [1, 2, 3]").find("warning"), std::string::npos);
  EXPECT_NE(words("effect: 0.001, noise: 0.002, seeds: [1, 2, 3]").find("63 repeats would show it"),
            std::string::npos)
      << words("effect: 0.001, noise: 0.002, seeds: [1, 2, 3]");
}

TEST(StudyPower, NoiseOfAnEarlierStudy) {
  const test::TemporaryFolder folder;
  Table repeats;
  for (const auto& [count, deviation] :
       {std::pair(3, 0.004), std::pair(2, 0.002), std::pair(1, std::nan(""))}) {
    repeats.add_row();
    repeats.set("num_repeats", std::int64_t{count});
    repeats.set("std_loss", deviation);
  }
  hdf5::File file = hdf5::File::create(folder / "earlier.h5");
  write_table(file, "repeats", repeats);
  file.close_synced();
  StudyConfig study;
  study.noise_file = folder / "earlier.h5";
  EXPECT_NEAR(noise_for(study).value, std::sqrt((2 * 16e-6 + 4e-6) / 3), 1e-12);
  EXPECT_EQ(noise_for(study).source, study.noise_file);
}

TEST(StudyPower, SpreadOfRepeats) {
  const Spread spread = spread_of({3, 1, 2, 4});
  EXPECT_EQ(spread.median, 2.5);
  EXPECT_EQ(spread.least, 1);
  EXPECT_EQ(spread.largest, 4);
  EXPECT_NEAR(spread.standard_deviation, std::sqrt(5.0 / 3), 1e-15);
  EXPECT_TRUE(std::isnan(spread_of({1}).standard_deviation));
}

// The names of points hang on what they compute alone.
TEST(StudyPoints, KeepTheirNamesWhenTheFileGrows) {
  const test::TemporaryFolder folder;
  test::write_contents(folder / "base.yaml",
                       "run: {output: x}\ndata: {path: none.h5}\n"
                       "model: {vocab_size: 64, hidden: 16, num_layers: 1, num_heads: 2, "
                       "num_kv_heads: 1, sequence_length: 8}\nexperts: {intermediate: 16}\n");
  const auto names = [&](const std::string& grid) {
    const StudyConfig file =
        load_study("study: {name: s, output: out, config: " + (folder / "base.yaml") +
                       "}\nsets: [{name: a, grid: {" + grid + "}}]\n",
                   "study.yaml");
    std::vector<std::string> found;
    for (const StudyPoint& point : make_study(file, [](const LoadedConfig&) { return 64; }).points)
      found.push_back(point.name);
    return found;
  };
  const auto first = names("experts.num_experts: [2, 4]");
  const auto grown = names("experts.num_experts: [8, 4, 2]");
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(grown[1], first[1]);
  EXPECT_EQ(grown[2], first[0]);
  EXPECT_EQ(names("experts.num_experts: [2, 2]").size(), 1u);  // twice the same runs once
  // A value that is the default is no other configuration, and where checkpoints are kept neither.
  EXPECT_EQ(names("experts.num_experts: [2], train.num_steps: [100]")[0], first[0]);
  EXPECT_EQ(names("experts.num_experts: [2], checkpoint.keep: [7]")[0], first[0]);
  EXPECT_NE(names("experts.num_experts: [2], train.num_steps: [99]")[0], first[0]);
  EXPECT_NE(names("experts.num_experts: [2], checkpoint.start_from: [runs/other]")[0], first[0]);
}

}  // namespace
}  // namespace switchyard
