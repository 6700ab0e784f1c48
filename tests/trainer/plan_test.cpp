// The plan takes micro-steps that are alike, and ranks that are alike, once. Here each rank takes
// each micro-step of its own, and all figures must be the same.
#include "trainer/plan.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/end_to_end/small_run.hpp"

namespace switchyard::test {
namespace {

struct Case {
  std::string name;
  int num_ranks;
  Config config;
};

RankPlan recorded_in_full(const Config& config, int num_ranks, int rank) {
  const std::unique_ptr<Device> device = make_plan_device();
  const Mesh mesh(*device, rank, num_ranks, config.parallel);
  Trainer trainer(*device, mesh, config, vocab_size);
  RandomSource source(trainer.batch_layout(), vocab_size, 0);
  device->profile().reset();
  trainer.step(1, source);
  RankPlan plan;
  plan.rank = rank;
  for (int part = 0; part < num_parts; ++part)
    plan.step[static_cast<std::size_t>(part)] = device->profile().work(static_cast<Part>(part));
  plan.peak_bytes = device->memory().peak_total();
  plan.max_rows = trainer.agree_on_rows();
  plan.spilled_bytes = trainer.bytes_spilled();
  for (int purpose = 0; purpose < num_purposes; ++purpose)
    plan.bytes[static_cast<std::size_t>(purpose)] =
        device->memory().at_peak(static_cast<Purpose>(purpose));
  return plan;
}

// Sums of whole numbers are exact. Bytes of a reduction over ranks that do not divide them are
// thirds and the like: a product and a sum of those round differently, by a few last bits.
void expect_same(const RankPlan& planned, const RankPlan& full) {
  EXPECT_EQ(planned.rank, full.rank);
  EXPECT_EQ(planned.bytes, full.bytes);
  EXPECT_EQ(planned.peak_bytes, full.peak_bytes);
  EXPECT_EQ(planned.max_rows, full.max_rows);
  EXPECT_EQ(planned.spilled_bytes, full.spilled_bytes);
  for (std::size_t part = 0; part < num_parts; ++part) {
    SCOPED_TRACE(name_of(static_cast<Part>(part)));
    EXPECT_EQ(planned.step[part].flops, full.step[part].flops);
    EXPECT_EQ(planned.step[part].bytes, full.step[part].bytes);
    EXPECT_NEAR(planned.step[part].wire_bytes, full.step[part].wire_bytes,
                1e-14 * full.step[part].wire_bytes);
    EXPECT_EQ(planned.step[part].control_bytes, full.step[part].control_bytes);
    EXPECT_EQ(planned.step[part].control_messages, full.step[part].control_messages);
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const MakeConfig make : all_configs)
    for (const std::int64_t micro_batch : {1, 2, 6, 12})
      all.push_back({"expert 2", 2, make(2)}), all.back().config.train.micro_batch = micro_batch;
  Case experts{"more ranks than experts, slots that experts do not divide", 6, small_config(6)};
  experts.config.train = {.num_steps = 1, .global_batch = 36, .micro_batch = 1};
  experts.config.model.sequence_length = 37;
  experts.config.experts.top_k = 3;
  all.push_back(experts);
  experts.name = "two or three experts a rank";
  experts.config.experts.num_experts = 16;
  all.push_back(experts);
  experts.name = "spilled";
  experts.config.activations.policy = LayerPolicy::spill;
  experts.config.model.num_layers = 5;
  all.push_back(experts);
  Case context{"uneven parts of sequences", 12, small_config(6)};
  context.config.model.sequence_length = 101;
  context.config.train = {.num_steps = 1, .global_batch = 36, .micro_batch = 2};
  context.config.parallel.context = 4;
  context.config.parallel.context_split.pad = true;
  context.config.data.document_mask = true;
  context.config.activations.policy = LayerPolicy::recompute;
  all.push_back(context);
  context.name = "contiguous and gathered";
  context.config.parallel.context_split.layout = SequenceLayout::contiguous;
  context.config.parallel.context_split.method = ContextMethod::all_gather;
  context.config.parallel.expert = 12;
  all.push_back(context);
  return all;
}

TEST(Plan, HasTheFiguresOfAllMicroStepsOfAllRanks) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name + ", micro_batch " + std::to_string(c.config.train.micro_batch));
    const Plan plan = make_plan(c.config, c.num_ranks, vocab_size);
    Config config = c.config;
    config.parallel = resolved_parallel(config, c.num_ranks);
    ASSERT_EQ(std::ssize(plan.ranks), std::lcm(config.parallel.expert, config.parallel.context));
    for (const RankPlan& rank : plan.ranks) {
      SCOPED_TRACE(rank.rank);
      expect_same(rank, recorded_in_full(config, c.num_ranks, rank.rank));
    }
  }
}

TEST(Plan, KnowsThePeakOfGivenRows) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const std::int64_t rows = make_plan(c.config, c.num_ranks, vocab_size).fullest().max_rows;
    const std::int64_t most = worst_case_rows(c.config, c.num_ranks);
    for (const std::int64_t planned : {rows, std::midpoint(rows, most), most})
      EXPECT_EQ(peak_bytes_with_rows(c.config, c.num_ranks, vocab_size, planned),
                make_plan(c.config, c.num_ranks, vocab_size, planned).fullest().peak_bytes)
          << planned << " rows";
  }
}

}  // namespace
}  // namespace switchyard::test
