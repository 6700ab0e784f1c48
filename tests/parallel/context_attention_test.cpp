// Every scheme of split attention against dense attention in double: outputs, log-sum-exps and the
// gradients of queries, keys and values, of each rank by itself.
#include <gtest/gtest.h>

#include <limits>
#include <tuple>

#include "tensor/error.hpp"
#include "tensor/random.hpp"
#include "tests/parallel/split_run.hpp"
#include "tests/support/block_masks.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard {
namespace {

using test::AttentionProblem;
using test::DenseAttention;
using test::SplitCase;
using test::SplitRun;
using test::world;

// || actual - expected || / || expected || over a rank's rows, for operands in (-1, 1): sums of
// tens of fp32 products have errors of about 1e-7.
constexpr double fp32_tolerance = 2e-6;
// Where the terms of a gradient may cancel in the few rows of a rank, or scores are large.
constexpr double any_share = std::numeric_limits<double>::infinity();

// || actual - expected || / || sums of absolute terms || over a rank's rows. A score s is a sum in
// fp32 whose error is about 2^-24 sum |q_d k_d|; its log-sum-exp l, about as large, is rounded to
// fp32, too. p = e^(s - l) turns these absolute errors into its relative one, and every output and
// gradient is linear in p. (Of 200 drawn problems the worst has half of it.)
double rounding_of(const DenseAttention& dense) {
  return 4 * std::ldexp(1 + dense.largest_score, -24);
}

// Everything that these ranks can do with these heads.
std::vector<SplitCase> all_cases(const AttentionProblem& p, bool pad = false) {
  const std::int64_t size = world().size();
  std::vector<SplitCase> cases;
  for (std::int64_t ring = 1; ring <= size; ++ring) {
    const std::int64_t ulysses = size / ring;
    if (ring * ulysses != size || p.num_heads % ulysses != 0 ||
        (p.num_kv_heads % ulysses != 0 && ulysses % p.num_kv_heads != 0))
      continue;
    cases.push_back({.ring = ring, .ulysses = ulysses, .pad = pad});
    if (ring == 1) continue;
    cases.push_back(
        {.ring = ring, .ulysses = ulysses, .layout = SequenceLayout::contiguous, .pad = pad});
    cases.push_back(
        {.ring = ring, .ulysses = ulysses, .method = ContextMethod::all_gather, .pad = pad});
  }
  return cases;
}

void expect_dense(SplitRun& run, const DenseAttention& dense, double of_norm = fp32_tolerance) {
  run.run();
  const double tolerance = rounding_of(dense);
  for (const auto& [name, deviation] : run.deviations()) {
    EXPECT_LT(deviation.relative_to_terms(), tolerance) << name << " of rank " << world().rank();
    EXPECT_LT(deviation.relative(), of_norm) << name << " of rank " << world().rank();
  }
  if (dense.p.num_sinks == 0) return;
  std::vector<double> dsinks;
  for (const float value : run.dsinks().span<float>()) dsinks.push_back(static_cast<double>(value));
  world().all_reduce_values(dsinks, ReduceOp::sum);
  for (std::size_t i = 0; i < dsinks.size(); ++i)
    EXPECT_NEAR(dsinks[i], dense.dsinks[i], tolerance * dense.dsinks_terms[i]) << "sink " << i;
}

// The meshes of all tests: making one costs more than using it.
class ContextAttentionTest : public ::testing::Test {
 protected:
  static void TearDownTestSuite() { meshes().clear(); }

  static const Mesh& mesh_of(const SplitCase& split_case) {
    const auto key = std::make_pair(split_case.ring, split_case.method);
    std::unique_ptr<Mesh>& mesh = meshes()[key];
    if (!mesh) mesh = std::make_unique<Mesh>(world(), test::config_of(split_case));
    return *mesh;
  }

  static void expect_every_case_dense(const AttentionProblem& problem, bool pad = false,
                                      double of_norm = fp32_tolerance) {
    const DenseAttention dense(problem);
    for (const SplitCase& split_case : all_cases(problem, pad)) {
      SCOPED_TRACE(split_case.text());
      SplitRun run(mesh_of(split_case), dense, split_case);
      expect_dense(run, dense, of_norm);
    }
  }

  // Over the rows of all ranks, beside what one rank has that holds them all.
  static void expect_error_of_one_rank(const DenseAttention& dense) {
    const std::unique_ptr<Group> alone = make_local_group("alone");
    const Mesh mesh_of_one(*alone, {});
    SplitRun whole(mesh_of_one, dense, {});
    whole.run();
    const auto expected = whole.deviations();
    for (const SplitCase& split_case : all_cases(dense.p)) {
      SCOPED_TRACE(split_case.text());
      SplitRun run(mesh_of(split_case), dense, split_case);
      run.run();
      for (const auto& [name, deviation] : run.deviations()) {
        double sums[] = {deviation.difference, deviation.norm};
        world().all_reduce_values(sums, ReduceOp::sum);
        const double of_one = expected.at(name).relative();
        EXPECT_LT(std::sqrt(sums[0] / sums[1]), of_one * 1.1 + 1e-6) << name;
        EXPECT_LT(of_one, 1e-2) << name;
      }
    }
  }

 private:
  static std::map<std::pair<std::int64_t, ContextMethod>, std::unique_ptr<Mesh>>& meshes() {
    static std::map<std::pair<std::int64_t, ContextMethod>, std::unique_ptr<Mesh>> meshes;
    return meshes;
  }
};

// Begins near chunk edges, inside chunks, and documents of one token.
const std::vector<std::vector<std::int32_t>> ragged = {{5, 6, 24, 41}, {1, 12, 13, 30, 47}};

TEST_F(ContextAttentionTest, FullAttention) {
  expect_every_case_dense({});
}

TEST_F(ContextAttentionTest, DocumentsWithSinks) {
  expect_every_case_dense({.num_sinks = 2, .document_starts = ragged});
}

// The widths of 1: each query sees itself alone; of 3: less than any chunk; of 20: several chunks;
// of 48: all.
TEST_F(ContextAttentionTest, WindowsNarrowerAndWiderThanAChunk) {
  for (const std::int64_t window : {1, 3, 20, 48}) {
    SCOPED_TRACE(window);
    expect_every_case_dense({.num_sequences = 1, .window = window});
  }
}

TEST_F(ContextAttentionTest, WindowsInDocumentsWithSinks) {
  for (const std::int64_t window : {4, 17}) {
    SCOPED_TRACE(window);
    expect_every_case_dense({.window = window, .num_sinks = 1, .document_starts = ragged});
  }
}

TEST_F(ContextAttentionTest, GroupsOfOneAndOfAllHeads) {
  expect_every_case_dense({.num_sequences = 1, .num_kv_heads = 8});
  expect_every_case_dense({.num_kv_heads = 1});
  expect_every_case_dense({.num_sequences = 1, .num_heads = 6, .num_kv_heads = 3});
}

// Scores of 40 and -40.
TEST_F(ContextAttentionTest, LogSumExpsFarApart) {
  expect_every_case_dense({.num_sequences = 1, .spread = 80}, false, any_share);
  expect_every_case_dense({.document_starts = ragged, .spread = 80}, false, any_share);
}

TEST_F(ContextAttentionTest, UnevenLengthsArePaddedAndStayExact) {
  expect_every_case_dense({.length = 53}, true);
  expect_every_case_dense({.length = 49, .window = 9, .num_sinks = 1, .document_starts = ragged},
                          true);
  expect_every_case_dense({.length = 51, .num_kv_heads = 1, .document_starts = ragged}, true);
}

// Patterns of blocks beside their masks, some with sinks and documents: blocks that no rank's part
// ends with.
std::vector<AttentionProblem> block_patterns() {
  kernels::KeyPattern bigbird(2 * 4, 4);
  bigbird.block = 4;
  bigbird.random_blocks = 2;
  bigbird.random_stream = 1;
  test::BigBirdMask mask{.block = 4, .window_blocks = 2, .global_blocks = 1};
  for (std::int64_t block = 0; block < 20; ++block)
    mask.drawn.push_back(kernels::drawn_blocks(bigbird, block));
  kernels::KeyPattern fixed(7);
  fixed.block = 7;
  fixed.summary = 2;
  kernels::KeyPattern strided(5);
  strided.stride = 5;
  kernels::KeyPattern segment(6 + 9);
  segment.block = 6;
  return {
      {.length = 53,
       .pattern = bigbird,
       .sees = [mask](std::int64_t, std::int64_t q, std::int64_t k) { return mask.sees(q, k); },
       .num_sinks = 1},
      {.length = 53,
       .pattern = fixed,
       .sees = [](std::int64_t, std::int64_t q,
                  std::int64_t k) { return test::sees_fixed(7, 2, q, k); },
       .document_starts = ragged},
      {.length = 53,
       .pattern = strided,
       .sees = [](std::int64_t head, std::int64_t q,
                  std::int64_t k) { return test::sees_strided(5, head >= 4, q, k); },
       .num_sinks = 1,
       .document_starts = ragged},
      {.length = 53, .pattern = segment, .sees = [](std::int64_t, std::int64_t q, std::int64_t k) {
         return test::sees_segment(6, 9, q, k);
       }}};
}

TEST_F(ContextAttentionTest, PatternsOfBlocks) {
  if (test::is_tested_on_card()) GTEST_SKIP() << "patterns of blocks are for the CPU";
  for (const AttentionProblem& problem : block_patterns())
    expect_every_case_dense(problem, true, any_share);
}

kernels::KeyPattern hierarchical(std::int64_t block, std::int64_t window_blocks,
                                 std::int64_t chosen, std::int64_t summaries) {
  kernels::KeyPattern pattern(window_blocks * block);
  pattern.block = block;
  pattern.chosen_blocks = chosen;
  pattern.summaries = summaries;
  return pattern;
}

// Who chooses all blocks has full attention.
TEST_F(ContextAttentionTest, ChoosingAllBlocksIsFullAttention) {
  if (test::is_tested_on_card()) GTEST_SKIP() << "hierarchical attention is for the CPU";
  for (const std::int64_t block : {1, 4, 7, 60})
    expect_every_case_dense(
        {.length = 53, .pattern = hierarchical(block, 1 + block % 2, 60, 0), .num_sinks = 1}, true,
        any_share);
}

// Outputs before c keep their bits whatever stands from c on: c at borders of blocks, of ranks and
// of documents, and beside them.
TEST_F(ContextAttentionTest, NoOutputOfPatternsOfBlocksLearnsOfTheFuture) {
  if (test::is_tested_on_card()) GTEST_SKIP() << "patterns of blocks are for the CPU";
  std::vector<AttentionProblem> problems = block_patterns();
  problems.push_back({.length = 53, .pattern = hierarchical(4, 1, 2, 1)});
  problems.push_back({.length = 53,
                      .pattern = hierarchical(3, 2, 1, 0),
                      .num_sinks = 1,
                      .document_starts = ragged});
  for (const AttentionProblem& problem : problems)
    for (const SplitCase& split_case : all_cases(problem, true)) {
      if (split_case.method == ContextMethod::all_gather) continue;  // they gather anyway
      SCOPED_TRACE(split_case.text());
      const DenseAttention dense(problem, false);
      SplitRun run(mesh_of(split_case), dense, split_case);
      run.run();
      for (const std::int64_t c : {6, 7, 14, 24, 27, 41}) {
        AttentionProblem other = problem;
        other.changed_from = c;
        const DenseAttention changed(other, false);
        SplitRun after(mesh_of(split_case), changed, split_case);
        after.run();
        EXPECT_EQ(after.bits_of_outputs(c), run.bits_of_outputs(c)) << c;
        if (world().size() == 1) {
          EXPECT_NE(after.bits_of_outputs(c + 1), run.bits_of_outputs(c + 1)) << c;
        }
      }
    }
}

// Drawn from seeds: heads, lengths that divide by nothing, windows, sinks, documents down to single
// tokens, scores far apart; in every layout that these ranks can have.
AttentionProblem drawn(std::uint64_t seed) {
  std::uint64_t draws = 0;
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random_words(random_key(seed, "problem"), draws++, 0)[0]) % n;
  };
  constexpr std::pair<std::int64_t, std::int64_t> heads[] = {{1, 1}, {4, 4}, {4, 1}, {6, 2}, {6, 3},
                                                             {8, 1}, {8, 2}, {8, 8}, {12, 4}};
  AttentionProblem p;
  std::tie(p.num_heads, p.num_kv_heads) = heads[below(std::ssize(heads))];
  p.head_dim = 4 * (1 + below(6));
  p.num_sequences = 1 + below(3);
  p.length = 2 * world().size() + below(80);
  if (below(2) == 0) p.window = 1 + below(p.length + 5);
  if (below(2) == 0) p.num_sinks = 1 + below(2);
  if (below(3) == 0) p.spread = 80;
  const std::int64_t longest = below(2) == 0 ? 0 : 1 + below(p.length);  // of a document
  for (std::int64_t s = 0; longest > 0 && s < p.num_sequences; ++s) {
    std::vector<std::int32_t>& starts = p.document_starts.emplace_back();
    for (std::int64_t at = 1 + below(longest); at < p.length; at += 1 + below(longest))
      starts.push_back(static_cast<std::int32_t>(at));
  }
  return p;
}

TEST_F(ContextAttentionTest, ProblemsDrawnAtRandom) {
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    const AttentionProblem p = drawn(seed);
    SCOPED_TRACE(testing::Message()
                 << "seed " << seed << ": heads " << p.num_heads << " and " << p.num_kv_heads
                 << " of " << p.head_dim << ", " << p.num_sequences << " x " << p.length
                 << " positions, window " << p.window << ", sinks " << p.num_sinks << ", spread "
                 << p.spread << ", documents " << !p.document_starts.empty());
    expect_every_case_dense(p, true, any_share);
  }
}

// The kernel polls once a block of keys. Of R hops forward and R + 1 calls backward (the own block
// takes two) those for the own block are left where each chunk is a document.
TEST_F(ContextAttentionTest, BlocksThatNoDocumentMeetsCostNothing) {
  const std::int64_t ranks = world().size();
  if (ranks == 1) return;  // its two documents lie in one block
  AttentionProblem chunks{.document_starts = {{}, {}}};
  for (std::int64_t at = 48 / (2 * ranks); at < 48; at += 48 / (2 * ranks))
    for (std::vector<std::int32_t>& starts : chunks.document_starts)
      starts.push_back(static_cast<std::int32_t>(at));
  const DenseAttention whole(AttentionProblem{}), parts(chunks);
  const SplitCase ring{.ring = ranks};
  SplitRun of_whole(mesh_of(ring), whole, ring), of_parts(mesh_of(ring), parts, ring);
  of_whole.run();
  expect_dense(of_parts, parts);
  EXPECT_LE(of_parts.num_polls() * (2 * ranks + 1), of_whole.num_polls() * 3);
}

TEST_F(ContextAttentionTest, DocumentsOfTheNextBatchReplaceThoseBefore) {
  const DenseAttention with({.document_starts = ragged});
  const DenseAttention without(AttentionProblem{});
  for (const SplitCase& split_case : all_cases(with.p)) {
    SplitRun first(mesh_of(split_case), with, split_case);
    expect_dense(first, with);
    expect_dense(first, with);  // buffers are used again
    SplitRun second(mesh_of(split_case), without, split_case);
    expect_dense(second, without);
  }
}

// The bits depend neither on the run nor on what moves the messages, and the ring polls.
TEST_F(ContextAttentionTest, TheSameBitsHoweverMessagesMove) {
  const DenseAttention dense({.document_starts = ragged});
  for (SplitCase split_case : all_cases(dense.p)) {
    SCOPED_TRACE(split_case.text());
    std::vector<std::string> bits;
    for (const Progress progress :
         {Progress::poll, Progress::poll, Progress::thread, Progress::none}) {
      split_case.progress = progress;
      SplitRun run(mesh_of(split_case), dense, split_case);
      run.run();
      bits.push_back(run.bits());
      EXPECT_GT(run.num_polls(), 0);
    }
    for (const std::string& other : bits) EXPECT_EQ(other, bits[0]);
  }
}

// Partial outputs merge in fp32 and are rounded once: more ranks do not mean more error.
TEST_F(ContextAttentionTest, TheErrorInBf16DoesNotGrowWithTheRanks) {
  const std::vector<std::vector<std::int32_t>> documents = {{17, 50, 51, 120}};
  for (const AttentionProblem& problem :
       {AttentionProblem{.num_sequences = 1, .length = 192, .is_bf16 = true},
        AttentionProblem{.num_sequences = 1, .length = 192, .num_kv_heads = 8, .is_bf16 = true},
        AttentionProblem{.num_sequences = 1,
        .length = 192,
        .num_sinks = 1,
        .document_starts = documents,
        .is_bf16 = true}}) {
    SCOPED_TRACE(testing::Message()
                 << problem.num_kv_heads << " kv heads, " << problem.num_sinks << " sinks");
    expect_error_of_one_rank(DenseAttention(problem));
  }
}

TEST_F(ContextAttentionTest, HeadsThatDoNotDivideAreRefusedWithTheLegalDegrees) {
  const auto refusal = [](std::int64_t heads, std::int64_t kv_heads, std::int64_t ulysses) {
    try {
      require_none(head_mistakes(heads, kv_heads, ulysses));
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal(8, 2, 3),
            "parallel.context.ulysses: 3 ranks cannot share 8 heads and 2 kv heads: it must divide "
            "model.num_heads, and divide model.num_kv_heads or be a multiple of it; ulysses may be "
            "1, 2, 4, 8");
  EXPECT_EQ(
      refusal(12, 6, 4),
      "parallel.context.ulysses: 4 ranks cannot share 12 heads and 6 kv heads: it must divide "
      "model.num_heads, and divide model.num_kv_heads or be a multiple of it; ulysses may be "
      "1, 2, 3, 6, 12");
  EXPECT_EQ(refusal(8, 2, 8), "accepted");
  EXPECT_EQ(refusal(6, 3, 3), "accepted");
}

}  // namespace
}  // namespace switchyard
