// Rows with room for an expert's whole capacity, which change no bit, and sums in place of rows on
// the way back, which agree with rows to rounding; the plan knows the bytes of both.
#include "tests/end_to_end/dispatch_run.hpp"
#include "tests/end_to_end/evaluation_file.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

std::vector<DispatchCase> padding_cases() {
  return {
      {"by position", [](Config&) {}},
      {"by score, experts that do not divide, units of two sequences",
       [](Config& c) {
         c.experts.num_experts = 7;
         c.experts.drop_by = kernels::DropBy::score;
         c.experts.allow_future = true;
         c.numerics.exact = true;
         c.numerics.unit_sequences = 2;
       }},
      {"packed, shared experts, a latent space",
       [](Config& c) {
         c.experts.dispatch.wire = kernels::WireFormat::bf16;
         c.experts.shared.number = 1;
         c.experts.latent = 20;
       }},
      {"dropout, bf16, recomputed",
       [](Config& c) {
         c.experts.dropout = 0.1;
         c.run.precision = Precision::bf16;
         c.activations.policy = LayerPolicy::recompute;
       }},
      {"spilled, an expert that nobody chooses",
       [](Config& c) {
         c.experts.router = {.kind = RouterKind::imbalanced, .imbalance = 3.99};
         c.activations.policy = LayerPolicy::spill;
       }},
  };
}

// With room for an expert's whole capacity in every message: the same bits, sizes that the plan
// knows without being told, and an evaluation, which drops nothing, as ever.
TEST(Dispatch, PaddingToTheCapacityChangesNoBit) {
  const TemporaryFolder folder(world());
  const std::string own = folder.path() + "/" + std::to_string(world().rank());
  const TokenFile tokens(write_evaluation_file(own, 7, length));
  for (const DispatchCase& each : padding_cases()) {
    SCOPED_TRACE(each.name);
    Config config = base_config();
    config.experts.num_experts = 8;
    config.experts.top_k = 2;
    config.experts.router = {};
    config.experts.capacity_factor = 0.9;
    each.change(config);
    SmallRun expected(world(), config);
    const StepResult wanted = expected.train(1, 1).front();
    EXPECT_GT(wanted.load.dropped_fraction, 0);
    config.experts.capacity_padding = true;
    SmallRun run(world(), config);
    run.device->profile().reset();
    const StepResult step = run.train(1, 1).front();
    EXPECT_EQ(step.loss, wanted.loss);
    EXPECT_EQ(step.gradient_norm, wanted.gradient_norm);
    expect_same_bits(run, expected);
    const Plan plan = make_plan(config, world().size(), vocab_size);
    EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
    for (const Part part : {Part::dispatch, Part::combine})
      EXPECT_EQ(run.device->profile().work(part).wire_bytes,
                plan.ranks[static_cast<std::size_t>(world().rank())]
                    .step[static_cast<std::size_t>(part)]
                    .wire_bytes)
          << name_of(part);
    if (world().size() > 1) {
      EXPECT_EQ(
          run.trainer.agree_on_rows(),
          world().size() *
              Placement::contiguous(config.experts.num_experts, world().size()).most_places() *
              sequences_of_rank * config.experts.capacity_of(length));
    }
    const FixedBatches batches(tokens, Split::valid, run.trainer.batch_layout());
    EXPECT_EQ(run.trainer.evaluate(batches).loss, expected.trainer.evaluate(batches).loss);
  }
}

std::vector<DispatchCase> summed_cases() {
  return {
      {"top 3 of 8", [](Config& c) { c.experts.top_k = 3; }},
      {"ranks without experts, choices that are dropped, recomputed",
       [](Config& c) {
         c.experts.num_experts = 3;
         c.experts.capacity_factor = 0.9;
         c.activations.policy = LayerPolicy::recompute;
       }},
      {"a latent space, shared experts, spilled",
       [](Config& c) {
         c.experts.latent = 20;
         c.experts.shared = {.number = 1, .gate = SharedGate::sigmoid};
         c.activations.policy = LayerPolicy::spill;
       }},
      {"sequences split over the ranks",
       [](Config& c) {
         c.parallel.context_split.ring = world().size();
         c.train.micro_batch = c.train.global_batch;
       },
       2},
  };
}

// What a node's experts return for a token comes back as one sum: losses and gradients of rows that
// come back one by one, to the rounding of fp32, and the plan knows the bytes.
TEST(Dispatch, SummedReturnsAgreeWithRows) {
  for (const DispatchCase& each : summed_cases()) {
    if (world().size() < each.least_ranks) continue;
    Config config = base_config();
    config.experts.num_experts = 8;
    config.experts.top_k = 2;
    config.experts.router = {};
    each.change(config);
    SmallRun expected(world(), config);
    const StepResult wanted = expected.train(1, 1).front();
    for (const std::int64_t ranks_per_node : {0, 1, 2}) {
      SCOPED_TRACE(testing::Message() << each.name << ", nodes of " << ranks_per_node);
      Config other = config;
      other.experts.dispatch = summed(ranks_per_node);
      SmallRun run(world(), other);
      const StepResult step = run.train(1, 1).front();
      EXPECT_NEAR(step.loss, wanted.loss, 1e-6 * wanted.loss);
      EXPECT_LT(gradient_difference(run, expected), 2e-6);
      const Plan plan = make_plan(other, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
    }
  }
}

// Sums travel in fp32 also where rows are bf16: then they add up what is rounded once, so that they
// are no further from a run in fp32 than rows are.
TEST(Dispatch, SummedReturnsOfRowsInBf16) {
  Config config = base_config();
  config.experts.num_experts = 8;
  config.experts.top_k = 3;
  config.experts.router = {};
  SmallRun in_fp32(world(), config);
  in_fp32.train(1, 1);
  config.run.precision = Precision::bf16;
  SmallRun rows(world(), config);
  rows.train(1, 1);
  config.experts.dispatch = summed(1);
  SmallRun sums(world(), config);
  sums.train(1, 1);
  EXPECT_LT(gradient_difference(sums, in_fp32), 1.05 * gradient_difference(rows, in_fp32));
}

// Token n of a rank has the experts 4 n ... 4 n + 3 modulo 8, all on one node of two ranks, two on
// each: half of a rank's tokens go to the other node. docs/parallelism.md has the formula.
TEST(Dispatch, SummedReturnsSendTheBytesOfTheFormula) {
  if (world().size() != 4) GTEST_SKIP() << "two nodes of two ranks";
  Config config = base_config();
  config.experts.num_experts = 8;
  config.experts.top_k = 4;
  config.experts.router = {.kind = RouterKind::balanced};
  config.experts.dispatch = summed(2);
  SmallRun run(world(), config);
  run.device->profile().reset();
  run.train(1, 1);
  const Plan plan = make_plan(config, world().size(), vocab_size);
  double bytes = 0;  // of rows alone
  for (const Part part : {Part::dispatch, Part::combine})
    bytes += run.device->profile().work(part).wire_bytes -
             plan.ranks[static_cast<std::size_t>(world().rank())]
                 .step[static_cast<std::size_t>(part)]
                 .control_bytes;
  // n = 1 / 2; of the T tokens that a rank takes in, m = 1 other rank has experts of each. Four
  // ways a layer, two with tokens and two with sums, all of 4 bytes an element.
  const auto tokens = static_cast<double>(sequences_of_rank * length);
  const double wanted = 4 * (tokens * 0.5 + tokens * 1) *
                        static_cast<double>(config.model.hidden * config.model.num_layers) * 4;
  EXPECT_EQ(bytes, wanted);
}

}  // namespace
}  // namespace switchyard::test
