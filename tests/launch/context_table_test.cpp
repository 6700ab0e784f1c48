// The table of context schemes: a line for each legal one, the chosen one marked.
#include <gtest/gtest.h>

#include <sstream>

#include "launch/commands/context_table.hpp"

namespace switchyard {
namespace {

const ContextProblem problem{.length = 4096,
                             .num_sequences = 2,
                             .num_heads = 8,
                             .num_kv_heads = 2,
                             .head_dim = 64,
                             .patterns = {0, 0}};

ParallelConfig chosen_of(std::int64_t context, ContextMethod method = ContextMethod::automatic) {
  ParallelConfig config;
  config.context = context;
  config.context_split.method = method;
  return Mesh::resolved(with_chosen_context(problem, config), context);
}

TEST(ContextTableTest, OneRankHasNothingToChoose) {
  EXPECT_EQ(context_table(problem, chosen_of(1)), "");
}

TEST(ContextTableTest, ALineForEachSchemeAndOneIsChosen) {
  const std::string text = context_table(problem, chosen_of(4));
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 8u) << text;
  EXPECT_EQ(lines[0],
            "Sharing a sequence of 4096 positions over 4 ranks, a layer and micro-batch, with 1 "
            "TFLOP/s a rank and 1.25 GB/s a link");
  const char* schemes[] = {"  ring 4 ", "  all_gather 4 ", "  ring 2 x ulysses 2 ",
                           "  all_gather 2 x ulysses 2 ", "  ulysses 4 "};
  int num_chosen = 0;
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(lines[i + 3].starts_with(schemes[i])) << lines[i + 3];
    num_chosen += lines[i + 3].ends_with("  chosen") ? 1 : 0;
  }
  EXPECT_EQ(num_chosen, 1);
  // Two sequences, 2 (P - 1) n d b = 2 x 3 x 2048 x 128 x 2 bytes of each layer.
  EXPECT_NE(lines[3].find("    3.15 "), std::string::npos) << lines[3];
}

TEST(ContextTableTest, OnlyTheRingHidesItsMessages) {
  for (const SchemeCost& cost : all_scheme_costs(problem, chosen_of(4))) {
    const bool hides = cost.method == ContextMethod::ring && cost.ring > 1;
    EXPECT_EQ(cost.forward.hidden_share() > 0.2, hides) << cost.text();
    EXPECT_LE(cost.forward.hidden_share(), 1) << cost.text();
    EXPECT_EQ(cost.backward.hidden_share() > 0.2, hides) << cost.text();
  }
}

TEST(ContextTableTest, WhatTheConfigurationFixesIsMarkedAmongAll) {
  const ParallelConfig gather = chosen_of(4, ContextMethod::all_gather);
  int num_chosen = 0;
  for (const SchemeCost& cost : all_scheme_costs(problem, gather))
    if (is_chosen(cost, gather)) {
      ++num_chosen;
      EXPECT_TRUE(cost.method == ContextMethod::all_gather || cost.ring == 1);
    }
  EXPECT_EQ(num_chosen, 1);
}

}  // namespace
}  // namespace switchyard
