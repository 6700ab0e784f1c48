// The way of tokens to the experts' ranks and back: every kind and load, with a ceiling.
#include "bench/dispatch.hpp"

#include <gtest/gtest.h>

#include <map>

#include "tests/bench/printed.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

using Json = nlohmann::json;

const RunBenchmark dispatch = [](const bench::Repeats& repeats, const bench::Output& output) {
  // Four tokens, over and over: the first expert and each of the next four.
  const bench::TracedChoices traced{.step = 7,
                                    .layer = 3,
                                    .num_experts = 6,
                                    .top_k = 2,
                                    .max_over_mean = 3,
                                    .experts = {0, 1, 0, 2, 0, 3, 0, 4}};
  run_dispatch(world(), {.precisions = {DType::f32}, .sizes = {{60, 16, 6, 2}}, .traced = traced},
               repeats, output);
};

TEST(Choices, AreDifferentExpertsForEachToken) {
  const bench::DispatchSize size{100, 8, 5, 3};
  for (const bench::Choices choices :
       {bench::Choices::balanced, bench::Choices::skewed, bench::Choices::worst}) {
    const std::vector<std::int32_t> chosen = choices_of(size, choices, 1);
    ASSERT_EQ(chosen.size(), 300u);
    std::vector<int> counts(5);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      ASSERT_GE(chosen[i], 0);
      ASSERT_LT(chosen[i], 5);
      ++counts[static_cast<std::size_t>(chosen[i])];
      for (std::size_t other = i / 3 * 3; other < i; ++other) EXPECT_NE(chosen[other], chosen[i]);
    }
    if (choices == bench::Choices::balanced) {
      EXPECT_EQ(counts, std::vector<int>(5, 60));
    }
    if (choices == bench::Choices::skewed) {
      EXPECT_GT(counts[0], counts[4] + 20);
    }
    if (choices == bench::Choices::worst) {
      EXPECT_EQ(counts, (std::vector<int>{100, 100, 100, 0, 0}));
    }
  }
}

TEST(BenchDispatch, HasEveryKindAndLoadBesideItsCeiling) {
  const std::string text = printed(dispatch, true);
  if (world().rank() != 0) {
    EXPECT_EQ(text, "");
    return;
  }
  const Json json = Json::parse(text);
  EXPECT_EQ(json.at("benchmark"), "dispatch");
  ASSERT_EQ(json.at("rows").size(), 12u);
  std::map<std::string, double> sent;
  for (const Json& row : json.at("rows")) {
    const std::string choices = row.at("choices");
    EXPECT_GT(row.at("median_seconds"), 0);
    EXPECT_NEAR(row.at("times_ceiling").get<double>() * row.at("ceiling_share").get<double>(), 1,
                1e-9);
    const int fullest = row.at("fullest_rows");
    if (choices == "traced") {  // of four tokens' eight choices
      EXPECT_EQ(fullest, 60 * world().size() / 4 * (world().size() == 2 ? 6 : 5));
    } else if (choices == "worst") {
      EXPECT_EQ(fullest, 60 * world().size() * 2);
    } else {
      EXPECT_GE(fullest, 60 * 2);
    }
    if (choices == "balanced") sent[row.at("kind")] = row.at("bytes_sent");
  }
  // There and back, and all tokens to the others in place of the way there.
  const double row_bytes = 16 * 4, others = world().size() - 1;
  const double back = 60 * 2 * row_bytes * others / world().size();
  EXPECT_EQ(sent.at("all_to_all"), 2 * back);
  EXPECT_EQ(sent.at("all_gather"), 60 * row_bytes * others + back);
  EXPECT_LE(sent.at("hierarchical"), 2 * back);
}

}  // namespace
}  // namespace switchyard::test
