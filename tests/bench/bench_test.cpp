// Every benchmark, on small sizes: what its table and its JSON hold.
#include <gtest/gtest.h>

#include <cmath>

#include "bench/attention.hpp"
#include "bench/experts.hpp"
#include "bench/linear.hpp"
#include "bench/rate_tables.hpp"
#include "bench/step.hpp"
#include "kernels/threads.hpp"
#include "tests/bench/printed.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

using Json = nlohmann::json;

const RunBenchmark linear = [](const bench::Repeats& repeats, const bench::Output& output) {
  run_linear(world(), {.sizes = {{24, 32, 16}, {300, 16, 48}}}, repeats, output);
};
const RunBenchmark attention = [](const bench::Repeats& repeats, const bench::Output& output) {
  run_attention(world(), {.sizes = {{2, 24, 4, 2, 8}}}, repeats, output);
};
const RunBenchmark experts = [](const bench::Repeats& repeats, const bench::Output& output) {
  run_experts(world(), {.precisions = {DType::f32}, .sizes = {{4, 50, 16, 8}}}, repeats, output);
};
const RunBenchmark step = [](const bench::Repeats& repeats, const bench::Output& output) {
  Config config;
  config.run.precision = Precision::fp32;
  config.run.threads = 1;
  config.model.hidden = 16;
  config.model.num_layers = 2;
  config.model.num_heads = 2;
  config.model.num_kv_heads = 1;
  config.model.head_dim = 8;
  config.model.sequence_length = 12;
  config.experts.num_experts = 4;
  config.experts.intermediate = 8;
  config.train.global_batch = 4;
  config.train.micro_batch = 2;
  run_step(world(), test_session().log(), config, "small", repeats, true, output);
};

// The rows of the JSON on rank 0, checked for what all benchmarks share; none elsewhere.
Json checked_rows(const RunBenchmark& run, const std::string& name) {
  const std::string text = printed(run, true);
  if (world().rank() != 0) {
    EXPECT_EQ(text, "");
    return Json::array();
  }
  const Json json = Json::parse(text);
  EXPECT_EQ(json.at("benchmark"), name);
  EXPECT_EQ(json.at("machine").at("num_ranks"), world().size());
  EXPECT_EQ(json.at("machine").at("num_threads"), kernels::num_threads());
  EXPECT_EQ(json.at("machine").at("onednn"), "5.6");
  for (const auto& [what, rate] : json.at("ceilings").items()) EXPECT_GT(rate, 1e6) << what;
  return json.at("rows");
}

// A row's rate is its FLOPs over its median, and its share the rate over the ceiling.
void check_times(const Json& row) {
  EXPECT_GT(row.at("min_seconds"), 0);
  EXPECT_LE(row.at("min_seconds"), row.at("median_seconds"));
  EXPECT_LE(row.at("median_seconds"), row.at("max_seconds"));
  EXPECT_GT(row.at("ceiling_share"), 0);
}

// FLOPs of all ranks in the median repetition.
double flops(const Json& row) {
  return row.at("flops_per_second").get<double>() * row.at("median_seconds").get<double>();
}

TEST(Bench, TableHasTheMachineTheCeilingsAndTheRows) {
  const std::string text = printed(linear, false);
  if (world().rank() != 0) {
    EXPECT_EQ(text, "");
    return;
  }
  EXPECT_EQ(lines_of(text).front(), "# switchyard bench linear");
  EXPECT_EQ(count_lines(text, "# processor "), 1);
  EXPECT_EQ(count_lines(text, "# switchyard 1.2.3, compiler C++ 4, oneDNN 5.6, MPI 7"), 1);
  EXPECT_EQ(count_lines(text, "# ceiling: fp32 products at "), 1);
  EXPECT_EQ(count_lines(text, "# ceiling: bf16 products at "), 1);
  EXPECT_EQ(count_lines(text, "# ceiling: memory copies at "), 1);
  EXPECT_EQ(count_lines(text, "fp32 "), 8);  // two sizes, four operations
  EXPECT_EQ(count_lines(text, "bf16 "), 8);
}

TEST(Bench, LinearCountsTheFlopsOfAllRanks) {
  const Json rows = checked_rows(linear, "linear");
  if (world().rank() != 0) return;
  ASSERT_EQ(rows.size(), 16u);
  for (const Json& row : rows) {
    check_times(row);
    EXPECT_GT(row.at("bytes_per_second"), 0);
    if (row.at("operation") == "pack") {
      EXPECT_TRUE(row.at("flops_per_second").is_null() && row.at("num_rows").is_null());
      continue;
    }
    const double wanted = 2.0 * row.at("num_rows").get<double>() *
                          row.at("out_features").get<double>() *
                          row.at("in_features").get<double>() * world().size();
    EXPECT_NEAR(flops(row), wanted, 1e-6 * wanted);
  }
}

TEST(Bench, AttentionCountsVisiblePairsOnce) {
  const Json rows = checked_rows(attention, "attention");
  if (world().rank() != 0) return;
  ASSERT_EQ(rows.size(), 4u);
  for (const Json& row : rows) {
    check_times(row);
    const double pairs = 2 * 4 * (24 * 25 / 2.0);  // sequences, heads, pairs
    const double wanted = (row.at("operation") == "forward" ? 4 : 8) * 8 * pairs;
    EXPECT_EQ(row.at("flops"), wanted);
    EXPECT_NEAR(flops(row), wanted * world().size(), 1e-6 * wanted);
  }
}

TEST(Bench, ExpertsUnderBothLoads) {
  const Json rows = checked_rows(experts, "experts");
  if (world().rank() != 0) return;
  ASSERT_EQ(rows.size(), 4u);
  for (const Json& row : rows) {
    check_times(row);
    EXPECT_EQ(row.at("fullest_rows"), row.at("load") == "balanced" ? 13 : 24);
    const double products = (row.at("operation") == "forward" ? 6.0 : 12.0) * 50 * 16 * 8;
    // The planner also counts the activation's few operations.
    EXPECT_GE(flops(row), products * world().size() * (1 - 1e-6));
    EXPECT_LE(flops(row), products * world().size() * 1.3);
    EXPECT_GT(row.at("bound_share"), 0);
    EXPECT_GE(row.at("bound_share").get<double>(),
              row.at("ceiling_share").get<double>() * (1 - 1e-12));
    EXPECT_NEAR(row.at("rows_per_second").get<double>() * row.at("median_seconds").get<double>(),
                50.0 * world().size(), 1e-6);
  }
}

TEST(Bench, StepPartsAddUpToTheStep) {
  const std::string text = printed(step, true);
  if (world().rank() != 0) return;
  const Json json = Json::parse(text);
  EXPECT_EQ(json.at("config"), "small");
  EXPECT_GT(json.at("memory_bytes"), 0);
  EXPECT_NEAR(json.at("tokens_per_second").get<double>() * json.at("median_seconds").get<double>(),
              48, 1e-6);
  const Json& rows = json.at("rows");
  ASSERT_EQ(rows.size(), static_cast<std::size_t>(num_parts) + 1);
  double sum = 0;
  for (std::size_t part = 0; part < num_parts; ++part)
    sum += rows[part].at("seconds").get<double>();
  EXPECT_EQ(rows.back().at("part"), "step");
  EXPECT_NEAR(sum, rows.back().at("seconds").get<double>(), 1e-3 * sum);
}

TEST(Bench, StepTableEndsWithTheSummary) {
  const std::string text = printed(step, false);
  if (world().rank() != 0) return;
  EXPECT_EQ(count_lines(text, "# ceiling: fp32 products at "), 1);
  for (const char* line :
       {"experts ", "optimizer ", "step   ", "throughput ", "lower bound ", "memory "})
    EXPECT_GE(count_lines(text, line), 1) << line;
}

// By hand: 10 rows of 4 elements in, 4 out (backward 4 more), 2 x 3 of gate and up; 2 experts with
// 3 x 3 x 4 weights.
TEST(Bench, LeastBytesOfExperts) {
  const bench::ExpertsSize size{2, 10, 4, 3};
  EXPECT_EQ(least_bytes(size, DType::f32, false), (10 * (4 + 4 + 6) + 72) * 4);
  EXPECT_EQ(least_bytes(size, DType::bf16, true), (10 * (4 + 4 + 4 + 6) + 72) * 2 + 72 * 8);
}

TEST(Bench, OffsetsCoverTheRows) {
  using bench::Load;
  EXPECT_EQ(bench::expert_offsets(4, 8, Load::balanced),
            (std::vector<std::int64_t>{0, 2, 4, 6, 8}));
  EXPECT_EQ(bench::expert_offsets(3, 11, Load::skewed), (std::vector<std::int64_t>{0, 6, 9, 11}));
  EXPECT_EQ(bench::expert_offsets(4, 0, Load::skewed), (std::vector<std::int64_t>{0, 0, 0, 0, 0}));
}

TEST(Bench, TimesAreOrderStatistics) {
  const bench::Times odd = bench::times_of({3, 1, 9});
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.median, 3);
  EXPECT_EQ(odd.max, 9);
  EXPECT_EQ(bench::times_of({4, 1, 2, 8}).median, 3);
}

// [2, 3]: the middle of the first row stands between 2 and 8, and above 4; the last corner beside
// 4 and below 8.
TEST(RateTables, APointsNeighboursAreThoseAlongTheAxes) {
  const RateTable table{.axes = {{1, 2}, {1, 2, 3}}, .rates = {2, 100, 8, 16, 4, 32}};
  EXPECT_NEAR(bench::rate_beside(table, 1), 4, 1e-12);
  EXPECT_NEAR(bench::rate_beside(table, 5), std::sqrt(4.0 * 8.0), 1e-12);
  const RateTable alone{.axes = {{1}}, .rates = {3}};
  EXPECT_EQ(bench::rate_beside(alone, 0), 3);
}

}  // namespace
}  // namespace switchyard::test
