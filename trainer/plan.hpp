// What a configuration needs, before anything is submitted: the trainer's own constructor and step,
// run on the plan device for each kind of rank. Memory is therefore the bytes that the allocator of
// the real run will count, and the work is what the kernels and groups of the step do.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/memory_ledger.hpp"
#include "tensor/profile.hpp"
#include "tensor/work_record.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// One rank of a layout.
struct RankPlan {
  int rank = 0;
  std::array<std::int64_t, num_purposes> bytes{};  // at the moment of the peak
  std::int64_t peak_bytes = 0;
  std::int64_t reserved_bytes = 0;  // of address space: what may grow has room for the most rows
  std::int64_t max_rows = 0;        // rows assumed received by the fullest rank in a layer
  std::array<Work, num_parts> step{};
  double spilled_bytes = 0;  // to the store of spilled activations and back, in a step
  // What the rank does in a step, in order; null unless asked for. Ranks alike share one.
  std::shared_ptr<const WorkRecord> record = nullptr;

  Work step_total() const;
};

struct Plan {
  int num_ranks = 1;
  ParallelConfig parallel;  // resolved
  std::int64_t num_parameters = 0;
  std::int64_t num_state_elements = 0;     // saved, not trained
  std::int64_t num_active_parameters = 0;  // that one token passes: top_k of the experts
  std::int64_t num_micro_steps = 1;
  std::int64_t tokens_per_step = 0;
  std::vector<RankPlan> ranks;  // of one expert group; the other groups are the same

  // The rank with the largest peak.
  const RankPlan& fullest() const;
  std::int64_t most_reserved_bytes() const;  // of any rank
  // Over all ranks of the job: operations of one step, and bytes on the wire.
  double step_flops() const;
  double step_wire_bytes() const;
};

// What a plan keeps of the steps.
enum class StepRecords : std::uint8_t {
  none,
  alike_once,  // micro-steps that are alike are one item each, which says how often it stands
  full,        // every micro-step, and every rank by itself
};

// ConfigError if the layout does not hold on num_ranks. planned_rows 0: balanced routing.
Plan make_plan(const Config& config, int num_ranks, std::int64_t vocab_size_used,
               std::int64_t planned_rows = 0, StepRecords records = StepRecords::none);

// The plan of rank 0 alone, which in a layout with balanced routing stands for all but for what
// does not divide: for a search, which looks at many layouts. Without a step if what the rank holds
// before it is above memory_limit already (0: no limit): peak_bytes is that then, and there is no
// record.
Plan plan_first_rank(const Config& config, int num_ranks, std::int64_t vocab_size_used,
                     StepRecords records, std::int64_t memory_limit);

// The peak of the fullest rank if the fullest received that many rows (at least 1) in a layer.
// balanced: as make_plan() gives it of this configuration. Ranks that hold the same there, and
// reserve the same for whatever may come, are looked at once.
std::int64_t peak_bytes_with_rows(const Config& config, const Plan& balanced,
                                  std::int64_t vocab_size_used, std::int64_t rows);

// The largest number of received rows for which the fullest rank stays within `bytes`, between the
// balanced number and the most that routing can send; 0 if even the balanced number does not fit.
std::int64_t most_rows_within(const Config& config, const Plan& balanced,
                              std::int64_t vocab_size_used, std::int64_t bytes);
// Rows if every token of an expert group went to one rank: the most that routing can send.
std::int64_t worst_case_rows(const Config& config, int num_ranks);
// The fullest rank receives at least so many, however the router decides: what a rank receives in
// the mean.
std::int64_t least_rows(const Config& config, int num_ranks);

}  // namespace switchyard
