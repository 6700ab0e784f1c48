// Every scheme of split attention against dense attention in double: outputs, log-sum-exps and the
// gradients of queries, keys and values, of each rank by itself.
#include <gtest/gtest.h>

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

// || actual - expected || / || expected || over a rank's rows, for operands in (-1, 1): sums of
// tens of fp32 products have errors of about 1e-7.
constexpr double fp32_tolerance = 2e-6;

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
    cases.push_back({.ring = ring, .ulysses = ulysses, .method = "all_gather", .pad = pad});
  }
  return cases;
}

void expect_dense(SplitRun& run, const DenseAttention& dense, double tolerance) {
  run.run();
  for (const auto& [name, deviation] : run.deviations())
    EXPECT_LT(deviation.relative(), tolerance) << name << " of rank " << world().rank();
  if (dense.p.num_sinks == 0) return;
  std::vector<double> dsinks;
  for (const float value : run.dsinks().span<float>()) dsinks.push_back(static_cast<double>(value));
  world().all_reduce_values(dsinks, ReduceOp::sum);
  for (std::size_t i = 0; i < dsinks.size(); ++i)
    EXPECT_NEAR(dsinks[i], dense.dsinks[i], tolerance * 100) << "sink " << i;
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
                                      double tolerance = fp32_tolerance) {
    const DenseAttention dense(problem);
    for (const SplitCase& split_case : all_cases(problem, pad)) {
      SCOPED_TRACE(split_case.text());
      SplitRun run(mesh_of(split_case), dense, split_case);
      expect_dense(run, dense, tolerance);
    }
  }

 private:
  static std::map<std::pair<std::int64_t, std::string>, std::unique_ptr<Mesh>>& meshes() {
    static std::map<std::pair<std::int64_t, std::string>, std::unique_ptr<Mesh>> meshes;
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

// Scores of 40 and -40: the rounding of a score by 40 x 2^-24 is the relative one of its
// exponential.
TEST_F(ContextAttentionTest, LogSumExpsFarApart) {
  expect_every_case_dense({.num_sequences = 1, .spread = 80}, false, 2e-5);
  expect_every_case_dense({.document_starts = ragged, .spread = 80}, false, 2e-5);
}

TEST_F(ContextAttentionTest, UnevenLengthsArePaddedAndStayExact) {
  expect_every_case_dense({.length = 53}, true);
  expect_every_case_dense({.length = 49, .window = 9, .num_sinks = 1, .document_starts = ragged},
                          true);
  expect_every_case_dense({.length = 51, .num_kv_heads = 1, .document_starts = ragged}, true);
}

TEST_F(ContextAttentionTest, DocumentsOfTheNextBatchReplaceThoseBefore) {
  const DenseAttention with({.document_starts = ragged});
  const DenseAttention without(AttentionProblem{});
  for (const SplitCase& split_case : all_cases(with.p)) {
    SplitRun first(mesh_of(split_case), with, split_case);
    expect_dense(first, with, fp32_tolerance);
    expect_dense(first, with, fp32_tolerance);  // buffers are used again
    SplitRun second(mesh_of(split_case), without, split_case);
    expect_dense(second, without, fp32_tolerance);
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
  const DenseAttention dense({.num_sequences = 1, .length = 192, .is_bf16 = true});
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

TEST_F(ContextAttentionTest, HeadsThatDoNotDivideAreRefusedWithTheLegalDegrees) {
  const auto refusal = [](std::int64_t heads, std::int64_t kv_heads, std::int64_t ulysses) {
    try {
      require_heads(heads, kv_heads, ulysses);
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
