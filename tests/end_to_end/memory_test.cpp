// What a rank needs beside weights, gradients and moments is set by its own tokens times hidden:
// measured by the allocator's ledger where twice the ranks share a sequence, and planned for
// lengths, vocabularies and intermediates that no test could hold.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t mebibyte = 1 << 20;

// A sequence for each data rank, of which each context rank has its part.
Config one_sequence_each(std::int64_t context) {
  Config config = small_config(1);
  config.run.precision = Precision::bf16;
  config.model.hidden = 64;
  config.model.head_dim = 16;
  config.model.sequence_length = 4096;
  config.model.mixer = {{.kind = MixerKind::window, .window = 64, .sinks = 1},
                        {.kind = MixerKind::full, .window = 0, .sinks = 0}};
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

// A figure of this process in /proc/self/status, in bytes.
std::int64_t process_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == name + ":") {
      std::int64_t kibibytes = 0;
      status >> kibibytes;
      return kibibytes * 1024;
    }
  ADD_FAILURE() << "/proc/self/status has no " << name;
  return 0;
}

// What the ledger counts is what the process takes: its resident set grows from before the trainer
// is made to the end of the second step by no more than the ledger's peak and a slack. The slack
// is what no ledger has: oneDNN's compiled products (some 100 KiB each), MPI's buffers, the tail of
// pages. And by no less than what surely is
// touched: values, gradients, moments and packed weights.
TEST(Memory, TheProcessGrowsByTheLedgersPeak) {
  Config config = one_sequence_each(world().size());
  config.model.hidden = 256;
  config.model.head_dim = 64;
  config.experts.intermediate = 512;
  config.experts.num_experts = 8;
  config.train.global_batch = 1;
  const std::int64_t before = process_bytes("VmRSS");
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak counts from here
  SmallRun run(world(), config);
  run.train(1, 2);
  const std::int64_t grown = process_bytes("VmHWM") - before;
  const MemoryLedger& memory = run.device->memory();
  const std::int64_t peak = memory.peak_total();
  std::int64_t touched = 0;
  for (const Purpose purpose : {Purpose::parameter, Purpose::gradient, Purpose::optimizer})
    touched += memory.at_peak(purpose);
  EXPECT_GT(peak, 100 * mebibyte) << "too little to see the rest in it";
  EXPECT_LE(grown, peak + peak / 20 + 32 * mebibyte);
  EXPECT_GE(grown, touched);
  if (world().rank() == 0)
    std::printf("grown by %.1f MiB, ledger's peak %.1f MiB\n",
                static_cast<double>(grown) / mebibyte, static_cast<double>(peak) / mebibyte);
}

// Bytes of the fullest of two ranks, without what the parameters need.
std::int64_t planned(std::int64_t length, std::int64_t vocab, std::int64_t intermediate) {
  Config config = small_config(1);
  config.run.precision = Precision::bf16;
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
  config.activations.policy = LayerPolicy::recompute;
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
