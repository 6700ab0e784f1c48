// What a rank needs beside weights, gradients and moments is set by its own tokens times hidden:
// measured by the allocator's ledger where twice the ranks share a sequence, and planned for
// lengths, vocabularies and intermediates that no test could hold.
#include <gtest/gtest.h>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t mebibyte = 1 << 20;

// A sequence for each data rank, of which each context rank has its part.
Config one_sequence_each(std::int64_t context) {
  Config config = small_config(1);
  config.run.precision = "bf16";
  config.model.hidden = 64;
  config.model.head_dim = 16;
  config.model.sequence_length = 4096;
  config.model.attention = {{.kind = "window", .window = 64, .sinks = 1},
                            {.kind = "full", .window = 0, .sinks = 0}};
  config.model.num_layers = 4;
  config.parallel.context = context;
  config.parallel.context_split.ring = context;
  config.train = {.num_steps = 2, .global_batch = world().size() / context, .micro_batch = 1};
  return config;
}

struct Measured {
  std::int64_t activations = 0;
  std::int64_t peak = 0;  // without what the parameters need
};

Measured measured(std::int64_t context) {
  SmallRun run(world(), one_sequence_each(context));
  run.train(1, 1);
  const MemoryLedger& memory = run.device->memory();
  Measured result{memory.at_peak(Purpose::activation), memory.peak_total()};
  for (const Purpose purpose : {Purpose::parameter, Purpose::gradient, Purpose::optimizer})
    result.peak -= memory.at_peak(purpose);
  return result;
}

TEST(Memory, ActivationsOfARankHalveWithTwiceTheRanks) {
  const Measured one = measured(1);
  Measured before = one;
  for (std::int64_t context = 2; context <= world().size(); context *= 2) {
    const Measured now = measured(context);
    SCOPED_TRACE(testing::Message() << context << " ranks share a sequence: " << now.activations
                                    << " of " << now.peak << " bytes are activations; before "
                                    << before.activations << " of " << before.peak);
    EXPECT_LT(now.activations, before.activations * 0.501);
    EXPECT_GT(now.activations, before.activations * 0.499);
    // Only ranks that share have blocks that travel; scratch for a block of rows is the same.
    EXPECT_LT(now.peak, before.peak * (context == 2 ? 0.75 : 0.6));
    before = now;
  }
}

// Bytes of the fullest of two ranks, without what the parameters need.
std::int64_t planned(std::int64_t length, std::int64_t vocab, std::int64_t intermediate) {
  Config config = small_config(1);
  config.run.precision = "bf16";
  config.model.vocab_size = vocab;
  config.model.hidden = 256;
  config.model.head_dim = 64;
  config.model.num_layers = 4;
  config.model.sequence_length = length;
  config.model.dense_intermediate = intermediate;
  config.experts.intermediate = intermediate;
  config.experts.every = 2;
  config.parallel.context = 2;
  config.parallel.context_split.ring = 2;
  config.activations.policy = "recompute";
  config.train = {.num_steps = 1, .global_batch = 1, .micro_batch = 1};
  const RankPlan rank = make_plan(config, 2, vocab).fullest();
  std::int64_t bytes = rank.peak_bytes;
  for (const Purpose purpose : {Purpose::parameter, Purpose::gradient, Purpose::optimizer})
    bytes -= rank.bytes[static_cast<std::size_t>(purpose)];
  return bytes;
}

// A sequence times this vocabulary would be 24 GiB a rank, times these intermediates 1 GiB a layer.
TEST(Memory, NoSequenceTimesVocabularyOrIntermediate) {
  const std::int64_t length = 131'072;
  const std::int64_t plain = planned(length, 1'024, 512);
  EXPECT_LT(planned(length, 50'176, 512) - plain, 128 * mebibyte);
  EXPECT_LT(planned(length, 1'024, 4'096) - plain, 128 * mebibyte);
  EXPECT_LT(planned(8 * length, 50'176, 512) - planned(8 * length, 1'024, 512), 128 * mebibyte);
}

TEST(Memory, GrowsWithTheTokensOfARankAlone) {
  const std::int64_t once = planned(131'072, 1'024, 512);
  const std::int64_t twice = planned(262'144, 1'024, 512);
  EXPECT_LE(twice, 2 * once);
  EXPECT_GT(twice, 1.8 * static_cast<double>(once));
}

}  // namespace
}  // namespace switchyard::test
