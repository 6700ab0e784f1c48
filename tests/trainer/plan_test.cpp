// The plan takes micro-steps that are alike, and ranks that are alike, once. Here each rank takes
// each micro-step of its own, and all figures must be the same.
#include "trainer/plan.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/end_to_end/small_run.hpp"
#include "trainer/pricing/step_prediction.hpp"

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

// Figures of no machine, so that nothing of a step is free or hidden by something larger.
MachineProfile some_machine() {
  MachineProfile profile;
  profile.path = "some machine";
  MachineSetting& setting = profile.settings.emplace_back();
  setting.ranks_per_host = 3;
  setting.plain = {{{DType::f32, 3e9}, {DType::bf16, 7e9}}, 2e9, 3e-6};
  setting.links[0]["any"] = {2e-6, 1e9};
  setting.links[1]["any"] = {2e-5, 3e8};
  setting.overlap_slowdown = 0.3;
  return profile;
}

// Of each case as it is, and on other layouts of its ranks: some 50 in all.
std::vector<Case> priced_cases() {
  std::vector<Case> all = cases();
  for (const MakeConfig make : all_configs)
    for (const int num_ranks : {1, 2, 3, 4, 6, 8})
      for (const std::int64_t expert : {1, 2, 4})
        for (const std::int64_t context : {1, 2}) {
          if (num_ranks % expert != 0 || num_ranks % context != 0) continue;
          Case c{"expert " + std::to_string(expert), num_ranks, make(1)};
          c.config.parallel = {};
          c.config.parallel.expert = expert;
          c.config.parallel.context = context;
          c.config.parallel.context_split.pad = true;
          c.config.train.global_batch = 24;
          c.config.train.micro_batch = 1;
          all.push_back(std::move(c));
        }
  return all;
}

TEST(Plan, IsPricedAsTheFullRecordIs) {
  const MachineProfile machine = some_machine();
  int num_layouts = 0;
  for (const Case& c : priced_cases()) {
    SCOPED_TRACE(c.name + ", ranks " + std::to_string(c.num_ranks));
    const auto predicted = [&](StepRecords records) {
      const Plan plan = make_plan(c.config, c.num_ranks, vocab_size, 0, records);
      return predict_step(plan, compute_dtype(c.config.run), machine, machine.settings.front(),
                          {.rows = {.fullest = 1.5}});
    };
    const StepPrediction once = predicted(StepRecords::alike_once);
    const StepPrediction full = predicted(StepRecords::full);
    EXPECT_GT(once.seconds, 0);
    EXPECT_NEAR(once.seconds, full.seconds, 1e-9 * full.seconds);
    for (std::size_t part = 0; part < num_parts; ++part) {
      SCOPED_TRACE(name_of(static_cast<Part>(part)));
      EXPECT_NEAR(once.times.parts[part], full.times.parts[part], 1e-9 * full.seconds);
      EXPECT_NEAR(once.times.exchanges[part], full.times.exchanges[part], 1e-9 * full.seconds);
    }
    for (std::size_t link = 0; link < num_link_classes; ++link)
      EXPECT_NEAR(once.link_bytes[link], full.link_bytes[link], 1e-9 * full.link_bytes[link]);
    ++num_layouts;
  }
  EXPECT_GE(num_layouts, 50);
}

TEST(Plan, RecordsWhatItsFiguresCount) {
  const Case c = cases().front();
  const Plan plan = make_plan(c.config, c.num_ranks, vocab_size, 0, StepRecords::alike_once);
  const RankPlan& rank = plan.ranks.front();
  double flops = 0, bytes = 0, wire_bytes = 0;
  std::int64_t num_waits = 0;
  for (const WorkItem& item : rank.record->items()) {
    if (item.what == WorkItem::What::wait) {
      ++num_waits;
      EXPECT_LT(item.unit, rank.record->num_exchanges());
      continue;
    }
    const WorkUnit& unit = rank.record->works()[static_cast<std::size_t>(item.unit)];
    EXPECT_FALSE(unit.kind.empty());
    flops += static_cast<double>(item.times) * unit.flops;
    bytes += static_cast<double>(item.times) * unit.bytes;
    if (unit.kind != "values") wire_bytes += static_cast<double>(item.times) * unit.wire_bytes;
  }
  EXPECT_EQ(flops, rank.step_total().flops);
  EXPECT_EQ(bytes, rank.step_total().bytes);
  EXPECT_EQ(wire_bytes, rank.step_total().wire_bytes);
  EXPECT_GT(num_waits, 0);
}

TEST(Plan, KnowsThePeakOfGivenRows) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const Plan balanced = make_plan(c.config, c.num_ranks, vocab_size);
    const std::int64_t rows = balanced.fullest().max_rows;
    const std::int64_t most = worst_case_rows(c.config, c.num_ranks);
    for (const std::int64_t planned : {rows, std::midpoint(rows, most), most})
      EXPECT_EQ(peak_bytes_with_rows(c.config, balanced, vocab_size, planned),
                make_plan(c.config, c.num_ranks, vocab_size, planned).fullest().peak_bytes)
          << planned << " rows";
  }
}

}  // namespace
}  // namespace switchyard::test
