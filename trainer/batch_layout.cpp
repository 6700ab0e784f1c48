#include "trainer/batch_layout.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "parallel/placement.hpp"
#include "tensor/error.hpp"

namespace switchyard {

ContextProblem context_problem(const Config& config, const ParallelConfig& parallel) {
  const std::int64_t data = std::max<std::int64_t>(parallel.data, 1);
  ContextProblem problem;
  problem.length = config.model.sequence_length;
  problem.num_sequences = config.train.micro_batch > 0
                              ? config.train.micro_batch
                              : std::max<std::int64_t>(config.train.global_batch / data, 1);
  problem.num_heads = config.model.num_heads;
  problem.num_kv_heads = config.model.num_kv_heads;
  problem.head_dim = config.model.effective_head_dim();
  problem.element_bytes = config.run.precision == Precision::bf16 ? 2 : 4;
  problem.windows.clear();
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer)
    problem.windows.push_back(config.model.attention_of_layer(layer).effective_window());
  return problem;
}

std::vector<ConfigMistake> layout_mistakes(const Config& config, std::int64_t num_ranks) {
  if (auto wrong = Mesh::mistakes(config.parallel, num_ranks); !wrong.empty()) return wrong;
  const ParallelConfig legal = Mesh::resolved(config.parallel, num_ranks);
  if (legal.context == 1) return {};
  return context_mistakes(context_problem(config, legal), config.parallel);
}

ParallelConfig resolved_parallel(const Config& config, std::int64_t num_ranks) {
  ParallelConfig legal = Mesh::resolved(config.parallel, num_ranks);
  if (legal.context == 1) return legal;
  const ContextProblem problem = context_problem(config, legal);
  return Mesh::resolved(with_chosen_context(problem, config.parallel), num_ranks);
}

SequenceSplit sequence_split_of(const Config& config, const ParallelConfig& parallel) {
  const ContextConfig& split = parallel.context_split;
  if (parallel.context == 1) return SequenceSplit(config.model.sequence_length);
  return {config.model.sequence_length, split.ring, split.ulysses, split.layout, split.pad};
}

namespace {

// Tokens of a micro-batch, and the rows that routing may send to one rank, have 32-bit numbers.
void require_numbers(const Config& config, const Mesh& mesh, std::int64_t micro_batch) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const std::int64_t num_tokens = micro_batch * config.model.sequence_length;
  if (num_tokens > most)
    throw ConfigError(
        fmt::format("train.micro_batch x model.sequence_length = {} x {} = {} tokens of a "
                    "micro-batch; at most {} can be numbered, so make train.micro_batch or "
                    "model.sequence_length smaller",
                    micro_batch, config.model.sequence_length, num_tokens, most));
  if (config.experts.num_experts == 0 || config.experts.every == 0) return;
  const Placement placement =
      Placement::contiguous(config.experts.num_experts, mesh.degree(Axis::expert));
  const std::int64_t num_local = micro_batch * sequence_split_of(config, mesh.config()).max_local();
  // Below 2^31 tokens x 10^6 ranks x 10^3 choices: no overflow.
  const std::int64_t num_rows = max_rows_received(placement, num_local, config.experts.top_k);
  if (num_rows > most)
    throw ConfigError(fmt::format(
        "of {} tokens of a rank's micro-batch (train.micro_batch {} x its part of "
        "model.sequence_length {}) on {} ranks (parallel.expert), each to experts.top_k {}, "
        "routing may send {} rows to one rank; at most {} can be numbered, so make "
        "train.micro_batch or model.sequence_length smaller, or parallel.context larger",
        num_local, micro_batch, config.model.sequence_length, placement.num_ranks(),
        config.experts.top_k, num_rows, most));
}

}  // namespace

BatchLayout batch_layout_of(const Config& config, const Mesh& mesh) {
  BatchLayout layout;
  layout.sequence_length = config.model.sequence_length;
  layout.global_batch = config.train.global_batch;
  layout.data_rank = mesh.index(Axis::data);
  layout.data_size = mesh.degree(Axis::data);
  layout.micro_batch = config.train.micro_batch > 0 ? config.train.micro_batch
                                                    : layout.global_batch / layout.data_size;
  require_numbers(config, mesh, layout.micro_batch);
  for (const PositionRange& segment :
       sequence_split_of(config, mesh.config()).segments(mesh.index(Axis::context)))
    layout.segments.push_back({segment.begin, segment.count});
  layout.with_documents = config.data.document_mask || config.data.restart_positions;
  layout.validate();
  return layout;
}

}  // namespace switchyard
