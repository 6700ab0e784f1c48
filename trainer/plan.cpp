#include "trainer/plan.hpp"

#include <algorithm>
#include <numeric>

#include "experts/placement.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

namespace {

// Members die in reverse order: the trainer first, the device last.
struct PlannedRank {
  PlannedRank(const Config& config, int rank, int num_ranks, std::int64_t vocab_size_used,
              std::int64_t planned_rows)
      : device(make_plan_device()),
        mesh(*device, rank, num_ranks, config.parallel),
        trainer(*device, mesh, config, vocab_size_used, planned_rows) {}

  std::unique_ptr<Device> device;
  Mesh mesh;
  Trainer trainer;
};

RankPlan plan_of(PlannedRank& planned, int rank) {
  RandomSource source(planned.trainer.batch_layout(), 1, 0);
  planned.device->profile().reset();
  planned.trainer.step(1, source);

  RankPlan plan;
  plan.rank = rank;
  for (int part = 0; part < num_parts; ++part)
    plan.step[static_cast<std::size_t>(part)] =
        planned.device->profile().work(static_cast<Part>(part));
  const MemoryLedger& memory = planned.device->memory();
  for (int purpose = 0; purpose < num_purposes; ++purpose)
    plan.bytes[static_cast<std::size_t>(purpose)] = memory.at_peak(static_cast<Purpose>(purpose));
  plan.peak_bytes = memory.peak_total();
  plan.max_rows = planned.trainer.max_rows();
  plan.spilled_bytes = planned.trainer.bytes_spilled();
  return plan;
}

std::int64_t active_parameters(const ExpertsConfig& experts, const ParameterStore& store) {
  std::int64_t active = 0;
  for (const Parameter& parameter : store.parameters()) {
    const std::int64_t numel = parameter.spec().global_shape.numel();
    const bool of_experts = parameter.spec().replicas == Axis::expert_data;
    active += of_experts ? numel / experts.num_experts * experts.top_k : numel;
  }
  return active;
}

// Rows that the fullest rank receives in a layer of a micro-step, whatever the router decides.
struct RowBounds {
  std::int64_t least = 0;
  std::int64_t most = 0;
};

RowBounds row_bounds(const Config& given, int num_ranks) {
  Config config = given;
  config.parallel = resolved_parallel(config, num_ranks);
  const std::unique_ptr<Device> device = make_plan_device();
  const Mesh mesh(*device, 0, num_ranks, config.parallel);
  const std::int64_t num_sequences = batch_layout_of(config, mesh).micro_batch;
  const std::int64_t top_k = config.experts.top_k;
  const std::int64_t expert = config.parallel.expert;
  const ExpertPlacement placement{config.experts.num_experts, static_cast<int>(expert)};
  const std::int64_t most_positions = sequence_split_of(config, config.parallel).max_local();
  RowBounds bounds;
  bounds.most =
      num_sequences * most_positions * expert * std::min(top_k, placement.max_local_experts());
  // Every rank keeps its own where experts are not sharded; else some rank receives the mean.
  const std::int64_t context = config.parallel.context;
  const std::int64_t num_slots = num_sequences * config.model.sequence_length * top_k;
  bounds.least =
      std::min(bounds.most, expert == 1 ? bounds.most : (num_slots + context - 1) / context);
  return bounds;
}

}  // namespace

Work RankPlan::step_total() const {
  Work total;
  for (const Work& work : step) {
    total.flops += work.flops;
    total.bytes += work.bytes;
    total.wire_bytes += work.wire_bytes;
  }
  return total;
}

const RankPlan& Plan::fullest() const {
  return *std::max_element(ranks.begin(), ranks.end(), [](const RankPlan& a, const RankPlan& b) {
    return a.peak_bytes < b.peak_bytes;
  });
}

double Plan::step_flops() const {
  double sum = 0;
  for (const RankPlan& rank : ranks) sum += rank.step_total().flops;
  return sum * num_ranks / static_cast<double>(ranks.size());
}

double Plan::step_wire_bytes() const {
  double sum = 0;
  for (const RankPlan& rank : ranks) sum += rank.step_total().wire_bytes;
  return sum * num_ranks / static_cast<double>(ranks.size());
}

Plan make_plan(const Config& given, int num_ranks, std::int64_t vocab_size_used,
               std::int64_t planned_rows) {
  Config config = given;
  config.parallel = resolved_parallel(config, num_ranks);
  Plan plan;
  plan.num_ranks = num_ranks;
  plan.parallel = config.parallel;
  plan.tokens_per_step = config.train.global_batch * config.model.sequence_length;
  // What a rank holds depends on its place in the expert group and in the context group.
  const auto num_kinds =
      static_cast<int>(std::lcm(config.parallel.expert, config.parallel.context));
  for (int rank = 0; rank < num_kinds; ++rank) {
    PlannedRank planned(config, rank, num_ranks, vocab_size_used, planned_rows);
    plan.ranks.push_back(plan_of(planned, rank));
    plan.num_parameters = planned.trainer.store().num_global_elements();
    plan.num_active_parameters = active_parameters(config.experts, planned.trainer.store());
    plan.num_micro_steps = planned.trainer.batch_layout().num_micro_steps();
  }
  return plan;
}

std::int64_t worst_case_rows(const Config& config, int num_ranks) {
  return row_bounds(config, num_ranks).most;
}

std::int64_t least_rows(const Config& config, int num_ranks) {
  return row_bounds(config, num_ranks).least;
}

std::int64_t most_rows_within(const Config& config, int num_ranks, std::int64_t vocab_size_used,
                              std::int64_t bytes) {
  const auto fits = [&](std::int64_t rows) {
    return make_plan(config, num_ranks, vocab_size_used, rows).fullest().peak_bytes <= bytes;
  };
  std::int64_t low = make_plan(config, num_ranks, vocab_size_used).fullest().max_rows;
  std::int64_t high = worst_case_rows(config, num_ranks);
  if (low == 0 || !fits(low)) return 0;
  if (fits(high)) return high;
  while (high - low > 1) {  // fits(low), not fits(high)
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace switchyard
