// Exact attention: every row of every scheme has the bits of one rank with whole sequences.
#include <gtest/gtest.h>

#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "tests/parallel/split_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard {
namespace {

using test::AttentionProblem;
using test::DenseAttention;
using test::SplitCase;
using test::SplitRun;
using test::world;

// The whole sequences on this rank alone.
class WholeRun {
 public:
  explicit WholeRun(const DenseAttention& operands) : run_(mesh_, operands, {}) { run_.run(); }
  const SplitRun& run() const { return run_; }

 private:
  std::unique_ptr<Group> alone_ = make_local_group("alone");
  Mesh mesh_{*alone_, {}};
  SplitRun run_;
};

// Everything that these ranks can do with these heads, exactly.
std::vector<SplitCase> exact_cases(const AttentionProblem& p) {
  const std::int64_t size = world().size();
  std::vector<SplitCase> cases;
  for (std::int64_t ulysses = 1; ulysses <= size; ++ulysses) {
    const std::int64_t ring = size / ulysses;
    if (ring * ulysses != size ||
        !head_mistakes(p.num_heads, p.num_kv_heads, ulysses, true).empty())
      continue;
    for (const SequenceLayout layout : {SequenceLayout::zigzag, SequenceLayout::contiguous})
      if (ring > 1 || layout == SequenceLayout::contiguous)
        cases.push_back({.ring = ring,
                         .ulysses = ulysses,
                         .method = ContextMethod::all_gather,
                         .layout = layout,
                         .pad = true,
                         .exact = true});
  }
  return cases;
}

void expect_bits_of_one_rank(const AttentionProblem& problem) {
  const DenseAttention operands(problem, false);
  const WholeRun whole(operands);
  for (const SplitCase& split_case : exact_cases(problem)) {
    SCOPED_TRACE(split_case.text());
    const Mesh mesh(world(), test::config_of(split_case));
    SplitRun run(mesh, operands, split_case);
    run.run();
    EXPECT_EQ(run.other_bits_than(whole.run()), "") << "of rank " << world().rank();
    run.run();  // buffers are used again
    EXPECT_EQ(run.other_bits_than(whole.run()), "") << "of rank " << world().rank();
  }
}

// Several blocks of queries and of keys, none of which ends where a rank's rows do.
constexpr std::int64_t several_blocks = 613;

const std::vector<std::vector<std::int32_t>> ragged = {{5, 6, 250, 410}, {1, 120, 131, 300, 612}};

TEST(ExactAttentionTest, FullAttention) {
  for (const bool is_bf16 : {false, true})
    expect_bits_of_one_rank({.length = several_blocks, .is_bf16 = is_bf16});
}

TEST(ExactAttentionTest, DocumentsWithSinks) {
  for (const bool is_bf16 : {false, true})
    expect_bits_of_one_rank(
        {.length = several_blocks, .num_sinks = 2, .document_starts = ragged, .is_bf16 = is_bf16});
}

TEST(ExactAttentionTest, Windows) {
  for (const std::int64_t window : {1, 3, 200})
    expect_bits_of_one_rank({.length = several_blocks, .window = window, .num_sinks = 1});
  expect_bits_of_one_rank(
      {.length = several_blocks, .window = 90, .document_starts = ragged, .is_bf16 = true});
}

TEST(ExactAttentionTest, PatternsOfBlocks) {
  kernels::KeyPattern bigbird(3 * 16, 16), fixed(50), strided(40), segment(30 + 41);
  bigbird.block = 16;
  bigbird.random_blocks = 2;
  fixed.block = 50;
  fixed.summary = 3;
  strided.stride = 40;
  segment.block = 30;
  for (const kernels::KeyPattern& pattern : {bigbird, fixed, strided, segment})
    expect_bits_of_one_rank({.length = several_blocks, .pattern = pattern, .num_sinks = 1});
  expect_bits_of_one_rank({.length = several_blocks, .pattern = strided, .is_bf16 = true});
  expect_bits_of_one_rank({.length = several_blocks, .pattern = fixed, .document_starts = ragged});
}

TEST(ExactAttentionTest, GroupsOfOneAndOfAllHeadsAndOddSizes) {
  expect_bits_of_one_rank({.num_sequences = 3, .length = 97, .num_kv_heads = 8, .head_dim = 6});
  expect_bits_of_one_rank({.length = 301, .num_kv_heads = 1, .head_dim = 20});
  expect_bits_of_one_rank({.num_sequences = 1, .length = 149, .num_heads = 6, .num_kv_heads = 3});
  expect_bits_of_one_rank({.length = 150, .num_heads = 6, .num_kv_heads = 6, .is_bf16 = true});
}

// A rank holds single rows of a block.
TEST(ExactAttentionTest, FewPositions) {
  expect_bits_of_one_rank({.length = 2 * world().size(), .is_bf16 = true});
  expect_bits_of_one_rank({.num_sequences = 1, .length = 2 * world().size() + 3, .window = 2});
}

// Where several threads work on a kv head together, and lanes add up the gradients of keys.
TEST(ExactAttentionTest, LongSequences) {
  expect_bits_of_one_rank(
      {.num_sequences = 1, .length = 2400, .num_heads = 2, .num_kv_heads = 1, .is_bf16 = true});
}

TEST(ExactAttentionTest, ScoresFarApart) {
  expect_bits_of_one_rank({.num_sequences = 1, .length = several_blocks, .spread = 80});
}

TEST(ExactAttentionTest, AnyNumberOfThreads) {
  const AttentionProblem problem{.length = several_blocks, .document_starts = ragged};
  const DenseAttention operands(problem, false);
  const WholeRun whole(operands);
  const SplitCase gather = exact_cases(problem).front();
  const Mesh mesh(world(), test::config_of(gather));
  for (const int threads : {1, 2, 4}) {
    kernels::set_num_threads(threads);
    SplitRun run(mesh, operands, gather);
    run.run();
    EXPECT_EQ(run.other_bits_than(whole.run()), "") << threads << " threads";
  }
  kernels::set_num_threads(1);
}

// What this test would not see if it compared too little: the ring's sums have other bits.
TEST(ExactAttentionTest, TheRingHasOtherBits) {
  const DenseAttention operands({.length = several_blocks}, false);
  const WholeRun whole(operands);
  const SplitCase ring{.ring = world().size(), .pad = true};
  const Mesh mesh(world(), test::config_of(ring));
  SplitRun run(mesh, operands, ring);
  run.run();
  EXPECT_NE(run.other_bits_than(whole.run()), "");
}

// Keys' gradients would be sums over the ranks that have the same kv head.
TEST(ExactAttentionTest, KvHeadsOnSeveralRanksAreRefused) {
  EXPECT_TRUE(head_mistakes(8, 2, 4).empty());
  const auto mistakes = head_mistakes(8, 2, 4, true);
  ASSERT_EQ(mistakes.size(), 1u);
  EXPECT_EQ(mistakes[0].text,
            "4 ranks cannot share 8 heads and 2 kv heads: it must divide model.num_heads, and "
            "divide model.num_kv_heads (numerics.exact: its gradients are not summed over ranks); "
            "ulysses may be 1, 2");
}

}  // namespace
}  // namespace switchyard
