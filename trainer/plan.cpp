#include "trainer/plan.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "trainer/placement/layer_placements.hpp"
#include "trainer/run_device.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

namespace {

PlanTarget plan_target(const Config& config) {
  return {.device = device_kind(config.run), .num_threads = 0};
}

// Members die in reverse order: the trainer first, the device last.
struct PlannedRank {
  PlannedRank(const Config& config, int rank, int num_ranks, std::int64_t vocab_size_used,
              std::int64_t planned_rows)
      : device(make_plan_device(plan_target(config))),
        mesh(*device, rank, num_ranks, config.parallel),
        trainer(*device, mesh, config, vocab_size_used, planned_rows) {}

  StepPlace place;  // of the step, for its record
  std::unique_ptr<Device> device;
  Mesh mesh;
  Trainer trainer;
};

// Micro-batches without tokens, which the plan device would not read. Every sequence is one
// document.
class EmptyBatches final : public BatchSource {
 public:
  explicit EmptyBatches(const BatchLayout& layout) {
    if (layout.with_documents)
      batch_.document_starts.resize(static_cast<std::size_t>(layout.micro_batch));
  }
  Batch next() override { return batch_; }

 private:
  Batch batch_;
};

// Takes the step and keeps its record, if that is asked for.
std::shared_ptr<const WorkRecord> take_step(PlannedRank& planned, StepRecords records) {
  EmptyBatches source(planned.trainer.batch_layout());
  Profile& profile = planned.device->profile();
  profile.reset();
  if (records != StepRecords::full) planned.trainer.take_alike_micro_steps_once();
  std::shared_ptr<WorkRecord> record;
  if (records != StepRecords::none) {
    record = std::make_shared<WorkRecord>();
    profile.publish_to(planned.place);
    profile.keep_work_in(record.get());
  }
  planned.trainer.step(1, source);
  profile.keep_work_in(nullptr);
  return record;
}

RankPlan plan_of(PlannedRank& planned, int rank, StepRecords records = StepRecords::none) {
  const std::shared_ptr<const WorkRecord> record = take_step(planned, records);

  RankPlan plan;
  plan.rank = rank;
  plan.record = record;
  for (int part = 0; part < num_parts; ++part)
    plan.step[static_cast<std::size_t>(part)] =
        planned.device->profile().work(static_cast<Part>(part));
  const MemoryLedger& memory = planned.device->memory();
  for (int purpose = 0; purpose < num_purposes; ++purpose)
    plan.bytes[static_cast<std::size_t>(purpose)] = memory.at_peak(static_cast<Purpose>(purpose));
  plan.peak_bytes = memory.peak_total();
  plan.reserved_bytes = memory.peak_reserved();
  plan.max_rows = planned.trainer.agree_on_rows();
  plan.spilled_bytes = planned.trainer.bytes_spilled();
  return plan;
}

// What the record of a rank depends on, beside what all ranks share: its part of a sequence and
// the rows that each of its experts receives of a rank's tokens; what it gathers for others before
// and behind its own rows; and where tokens go node by node, for what it sends, its place among the
// nodes. Ranks of one kind plan the same.
struct RankKind {
  int context_rank = 0;
  int expert_rank = 0;
  bool sends_before = false;  // to ranks before it, which have experts
  bool sends_behind = false;
  int own = 0;  // where experts have replicas: ranks differ in what they share with others
  std::vector<std::int64_t> rows_of_experts;

  auto operator<=>(const RankKind&) const = default;
};

// config.parallel is resolved.
RankKind kind_of(const Config& config, int rank) {
  RankKind kind;
  kind.context_rank = rank % static_cast<int>(config.parallel.context);
  if (config.experts.num_experts == 0) return kind;
  const std::int64_t num_tokens =
      context_problem(config, config.parallel).num_sequences *
      sequence_split_of(config, config.parallel).num_local(kind.context_rank);
  const Placement placement = placement_of(config.experts, config.parallel.expert);
  const int own = rank % placement.num_ranks();
  for (int other = 0; other < placement.num_ranks(); ++other) {
    if (placement.experts_of(other).empty()) continue;
    kind.sends_before = kind.sends_before || other < own;
    kind.sends_behind = kind.sends_behind || other > own;
  }
  if (placement.has_replicas()) kind.own = own;
  for (std::int64_t place = placement.first_place(own); place < placement.first_place(own + 1);
       ++place)
    kind.rows_of_experts.push_back(
        placement.balanced_rows(num_tokens * config.experts.top_k, place));
  return kind;
}

// Where parameters lie in the buckets of a rank: which of their elements a rank updates depends on
// its place among the replicas, as the last parts are filled up.
class OwnedElements {
 public:
  explicit OwnedElements(const ParameterStore& store) {
    for (const Bucket& bucket : store.buckets()) {
      if (bucket.kind == ParameterKind::state) continue;
      Layout layout{bucket.axis == Axis::expert_data, bucket.part, {}};
      for (const BucketEntry& entry : bucket.entries)
        layout.entries.emplace_back(entry.begin, entry.end);
      buckets_.push_back(std::move(layout));
    }
  }

  std::int64_t count(int rank, std::int64_t num_expert_ranks) const {
    std::int64_t sum = 0;
    for (const Layout& bucket : buckets_) {
      const std::int64_t replica = bucket.of_experts ? rank / num_expert_ranks : rank;
      const std::int64_t begin = replica * bucket.part;
      const std::int64_t end = begin + bucket.part;
      for (const auto& [entry_begin, entry_end] : bucket.entries)
        sum += std::max<std::int64_t>(0, std::min(entry_end, end) - std::max(entry_begin, begin));
    }
    return sum;
  }

 private:
  struct Layout {
    bool of_experts = false;
    std::int64_t part = 0;
    std::vector<std::pair<std::int64_t, std::int64_t>> entries;
  };
  std::vector<Layout> buckets_;
};

// The ranks of one kind that were planned: by the number of elements they update, their place.
struct PlannedKind {
  OwnedElements owned;
  std::map<std::int64_t, std::size_t> places = {};
};

// What a rank holds depends on its place in the expert group and in the context group.
int num_kinds(const ParallelConfig& parallel) {
  return static_cast<int>(std::lcm(parallel.expert, parallel.context));
}

std::int64_t active_parameters(const ExpertsConfig& experts, const ParameterStore& store) {
  std::int64_t active = 0;
  for (const Parameter& parameter : store.parameters()) {
    if (!parameter.is_trained()) continue;
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
  const Placement placement = placement_of(config.experts, config.parallel.expert);
  const std::int64_t most_positions = sequence_split_of(config, config.parallel).max_local();
  RowBounds bounds;
  bounds.most = num_sequences * most_positions * expert * std::min(top_k, placement.most_places());
  // Every rank keeps its own where experts are not sharded; else some rank receives the mean.
  const std::int64_t context = config.parallel.context;
  const std::int64_t num_slots = num_sequences * config.model.sequence_length * top_k;
  bounds.least =
      std::min(bounds.most, expert == 1 ? bounds.most : (num_slots + context - 1) / context);
  if (expert > 1)
    bounds.least = std::max(
        bounds.least, expert * placement.most_places() *
                          config.experts.padded_rows(num_sequences, config.model.sequence_length));
  return bounds;
}

}  // namespace

Work RankPlan::step_total() const {
  Work total;
  for (const Work& work : step) total += work;
  return total;
}

const RankPlan& Plan::fullest() const {
  return *std::max_element(ranks.begin(), ranks.end(), [](const RankPlan& a, const RankPlan& b) {
    return a.peak_bytes < b.peak_bytes;
  });
}

std::int64_t Plan::most_reserved_bytes() const {
  std::int64_t most = 0;
  for (const RankPlan& rank : ranks) most = std::max(most, rank.reserved_bytes);
  return most;
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

namespace {

// What is the same for all ranks; config.parallel is resolved.
Plan plan_of_layout(const Config& config, int num_ranks) {
  Plan plan;
  plan.num_ranks = num_ranks;
  plan.parallel = config.parallel;
  plan.tokens_per_step = config.train.global_batch * config.model.sequence_length;
  return plan;
}

void add_model(Plan& plan, const Config& config, PlannedRank& planned) {
  const ParameterStore& store = planned.trainer.store();
  plan.num_parameters = store.num_global_elements();
  plan.num_state_elements = store.num_global_elements(ParameterKind::state);
  plan.num_active_parameters = active_parameters(config.experts, store);
  plan.num_micro_steps = planned.trainer.batch_layout().num_micro_steps();
}

}  // namespace

Plan plan_first_rank(const Config& given, int num_ranks, std::int64_t vocab_size_used,
                     StepRecords records, std::int64_t memory_limit) {
  Config config = given;
  config.parallel = resolved_parallel(config, num_ranks);
  Plan plan = plan_of_layout(config, num_ranks);
  PlannedRank planned(config, 0, num_ranks, vocab_size_used, 0);
  add_model(plan, config, planned);
  const std::int64_t held = planned.device->memory().peak_total();
  if (memory_limit > 0 && held > memory_limit)
    plan.ranks.push_back({.rank = 0, .peak_bytes = held});
  else
    plan.ranks.push_back(plan_of(planned, 0, records));
  return plan;
}

Plan make_plan(const Config& given, int num_ranks, std::int64_t vocab_size_used,
               std::int64_t planned_rows, StepRecords records) {
  Config config = given;
  config.parallel = resolved_parallel(config, num_ranks);
  Plan plan = plan_of_layout(config, num_ranks);
  std::map<RankKind, PlannedKind> known;
  for (int rank = 0; rank < num_kinds(config.parallel); ++rank) {
    RankKind kind = kind_of(config, rank);
    if (config.experts.dispatch.kind == DispatchKind::hierarchical)
      kind.expert_rank = rank % static_cast<int>(config.parallel.expert);
    if (const auto same = known.find(kind); same != known.end() && records != StepRecords::full) {
      const auto& [owned, places] = same->second;
      if (const auto place = places.find(owned.count(rank, config.parallel.expert));
          place != places.end()) {
        plan.ranks.push_back(plan.ranks[place->second]);
        plan.ranks.back().rank = rank;
        continue;
      }
    }
    PlannedRank planned(config, rank, num_ranks, vocab_size_used, planned_rows);
    plan.ranks.push_back(plan_of(planned, rank, records));
    const ParameterStore& store = planned.trainer.store();
    PlannedKind& first = known.emplace(kind, PlannedKind{OwnedElements(store)}).first->second;
    first.places.emplace(first.owned.count(rank, config.parallel.expert), plan.ranks.size() - 1);
    add_model(plan, config, planned);
  }
  return plan;
}

std::int64_t peak_bytes_with_rows(const Config& given, const Plan& balanced,
                                  std::int64_t vocab_size_used, std::int64_t rows) {
  Config config = given;
  config.parallel = balanced.parallel;
  // What a rank's growable buffers may come to is in what it reserves.
  std::set<std::tuple<std::array<std::int64_t, num_purposes>, std::int64_t, std::int64_t>> known;
  std::int64_t most = 0;
  for (const RankPlan& rank : balanced.ranks) {
    if (!known.emplace(rank.bytes, rank.peak_bytes, rank.reserved_bytes).second) continue;
    PlannedRank planned(config, rank.rank, balanced.num_ranks, vocab_size_used, rows);
    most = std::max(most, plan_of(planned, rank.rank).peak_bytes);
  }
  return most;
}

std::int64_t worst_case_rows(const Config& config, int num_ranks) {
  return row_bounds(config, num_ranks).most;
}

std::int64_t least_rows(const Config& config, int num_ranks) {
  return row_bounds(config, num_ranks).least;
}

std::int64_t most_rows_within(const Config& config, const Plan& balanced,
                              std::int64_t vocab_size_used, std::int64_t bytes) {
  const auto fits = [&](std::int64_t rows) {
    return peak_bytes_with_rows(config, balanced, vocab_size_used, rows) <= bytes;
  };
  std::int64_t low = balanced.fullest().max_rows;
  std::int64_t high = worst_case_rows(config, balanced.num_ranks);
  if (low == 0 || !fits(low)) return 0;
  if (fits(high)) return high;
  while (high - low > 1) {  // fits(low), not fits(high)
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace switchyard
