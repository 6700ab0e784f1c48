// Sequence mixers other than full attention and plain windows change neither losses nor gradients
// where ranks split their sequences: recurrent kinds, patterns of blocks, segments, slots, spans.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/end_to_end/context_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

// Attention behind a convolution, and each recurrent kind, beside a window.
std::vector<std::vector<MixerConfig>> hybrids() {
  const MixerConfig window{.kind = MixerKind::window, .window = 5};
  return {
      {{.conv = 4}, window},
      {{.kind = MixerKind::linear, .conv = 4, .chunk = 4}, window},
      {{.kind = MixerKind::linear,
        .conv = 4,
        .key_width = 5,
        .chunk = 4,
        .features = LinearFeatures::taylor},
       window},
      {{.kind = MixerKind::linear, .conv = 4, .chunk = 4, .features = LinearFeatures::performer},
       window},
      {{.kind = MixerKind::retention, .chunk = 4}, window},
      {{.kind = MixerKind::lightning, .conv = 2, .chunk = 4}, window},
      {{.kind = MixerKind::ssd, .conv = 4, .heads = 3, .key_width = 6, .chunk = 4}, window},
      {{.kind = MixerKind::delta, .conv = 4, .chunk = 4}, window},
      {{.kind = MixerKind::infini, .conv = 4, .segment = 4}, window},
      {{.kind = MixerKind::gated_delta, .conv = 4, .heads = 6, .groups = 3, .chunk = 4}, window},
  };
}

// Infini-attention, of whose segments ranks hold whole ones.
bool has_segments(const std::vector<MixerConfig>& mixers) {
  return std::ranges::any_of(mixers, [](const MixerConfig& each) { return each.segment > 0; });
}

// Twenty steps of each kind in one layout, some in the other.
TEST(Context, TwentyStepsOfEveryRecurrentMixerEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "recurrent mixers are for the CPU";
  const std::int64_t ranks = world().size();
  bool is_zigzag = true;
  for (const std::vector<MixerConfig>& mixers : hybrids()) {
    for (const SequenceLayout layout : {SequenceLayout::zigzag, SequenceLayout::contiguous}) {
      const bool is_long = (layout == SequenceLayout::zigzag) == is_zigzag;
      expect_as_one_rank({.ranks = ranks,
                          .expert = ranks,
                          .layout = layout,
                          .length = 8 * ranks,
                          .mixers = mixers},
                         is_long ? 20 : 3);
    }
    is_zigzag = !is_zigzag;
  }
}

TEST(Context, RecurrentMixersWithDocumentsAndUnequalPartsEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "recurrent mixers are for the CPU";
  const std::int64_t ranks = world().size();
  for (const std::vector<MixerConfig>& mixers : hybrids()) {
    expect_as_one_rank({.ranks = ranks,
                        .ulysses = ranks % 2 == 0 ? 2 : 1,
                        .length = 8 * ranks,
                        .model = Model::documents,
                        .mixers = mixers},
                       3);
    // Runs that are shorter than the convolution, and of unequal lengths.
    if (!has_segments(mixers))
      expect_as_one_rank({.ranks = ranks, .length = 3 * ranks + 1, .mixers = mixers}, 2);
  }
}

// Attention by patterns of blocks and in segments: parts of ranks end in blocks.
std::vector<std::vector<MixerConfig>> patterns() {
  const MixerConfig bigbird{.kind = MixerKind::blocks,
                            .block = 3,
                            .window_blocks = 2,
                            .global_blocks = 1,
                            .random_blocks = 1};
  const MixerConfig fixed{.kind = MixerKind::blocks,
                          .sinks = 1,
                          .pattern = BlockPattern::fixed,
                          .stride = 5,
                          .summary = 2};
  const MixerConfig strided{
      .kind = MixerKind::blocks, .pattern = BlockPattern::strided, .stride = 3};
  const MixerConfig segment{.kind = MixerKind::segment, .length = 5, .memory = 4, .conv = 2};
  const MixerConfig chosen{
      .kind = MixerKind::hierarchical, .sinks = 1, .block = 3, .window_blocks = 1, .selected = 2};
  const MixerConfig means{.kind = MixerKind::hierarchical,
                          .block = 4,
                          .window_blocks = 2,
                          .selected = 1,
                          .summaries = BlockSummary::mean};
  const MixerConfig lsh{.kind = MixerKind::lsh, .window = 3, .buckets = 4, .rounds = 2, .conv = 2};
  const MixerConfig conv_heads{.kind = MixerKind::conv_attention, .conv_heads = 2, .width = 3};
  MixerConfig gates = means;
  gates.combine = BranchCombination::gates;
  gates.conv = 2;
  MixerConfig sums = means;
  sums.summaries = BlockSummary::linear;
  sums.summary = 2;
  sums.block = 1;  // documents have whole ones
  MixerConfig through = segment;
  through.gradient = SegmentGradient::through;
  return {{bigbird, fixed},
          {strided, segment},
          {chosen, means},
          {through, sums},
          {gates, {.kind = MixerKind::window, .window = 3}},
          {lsh, {.kind = MixerKind::window, .window = 3}},
          {conv_heads, {.kind = MixerKind::window, .window = 3}},
          {{.kind = MixerKind::window, .window = 7, .slots = 2},
           {.kind = MixerKind::window, .window = 9, .ramp = 4, .span_weight = 1e-3}}};
}

TEST(Context, PatternsOfBlocksSegmentsSlotsAndSpansEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "these patterns are for the CPU";
  const std::int64_t ranks = world().size();
  bool is_zigzag = true;
  for (const std::vector<MixerConfig>& mixers : patterns()) {
    is_zigzag = !is_zigzag;
    expect_as_one_rank({.ranks = ranks,
                        .expert = ranks,
                        .layout = is_zigzag ? SequenceLayout::zigzag : SequenceLayout::contiguous,
                        .length = 8 * ranks,
                        .mixers = mixers},
                       20);
    expect_as_one_rank({.ranks = ranks,
                        .ulysses = ranks % 2 == 0 ? 2 : 1,
                        .length = 6 * ranks + 1,
                        .model = Model::documents,
                        .mixers = mixers},
                       3);
  }
}

TEST(Context, KeysOfDistancesEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "scores by distance are for the CPU";
  const std::int64_t ranks = world().size();
  expect_as_one_rank({.ranks = ranks, .expert = ranks, .length = 8 * ranks, .model = Model::xl},
                     20);
  expect_as_one_rank({.ranks = ranks,
                      .layout = SequenceLayout::contiguous,
                      .length = 6 * ranks + 1,
                      .model = Model::xl_of_documents},
                     3);
}

TEST(Context, RecurrentMixersUnderEveryPolicyAndAsPlanned) {
  if (is_tested_on_card()) GTEST_SKIP() << "recurrent mixers are for the CPU";
  const std::int64_t ranks = world().size();
  for (const std::vector<MixerConfig>& mixers : hybrids()) {
    const auto losses = [&](LayerPolicy policy) {
      Config config = config_of({.ranks = ranks,
                                 .expert = ranks,
                                 .length = 8 * ranks + (has_segments(mixers) ? 0 : 1),
                                 .model = Model::documents,
                                 .mixers = mixers});
      config.model.num_layers = 4;
      config.run.precision = Precision::bf16;
      config.activations.policy = policy;
      config.activations.store = SpillStore::memory;
      SmallRun run(world(), config);
      std::vector<double> values;
      for (const StepResult& step : train(run, 1, 2)) {
        values.push_back(step.loss);
        values.push_back(step.gradient_norm);
      }
      const Plan plan = make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes())
          << name_of(policy) << ", " << name_of(mixers.front().kind);
      return values;
    };
    const std::vector<double> kept = losses(LayerPolicy::keep);
    EXPECT_EQ(losses(LayerPolicy::recompute), kept) << name_of(mixers.front().kind);
    EXPECT_EQ(losses(LayerPolicy::spill), kept) << name_of(mixers.front().kind);
  }
}

}  // namespace
}  // namespace switchyard::test
