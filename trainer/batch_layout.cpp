#include "trainer/batch_layout.hpp"

#include <algorithm>

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
  problem.element_bytes = config.run.precision == "bf16" ? 2 : 4;
  problem.windows.clear();
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer)
    problem.windows.push_back(config.model.attention_of_layer(layer).effective_window());
  return problem;
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
  return {config.model.sequence_length, split.ring, split.ulysses, sequence_layout_of(split.layout),
          split.pad};
}

BatchLayout batch_layout_of(const Config& config, const Mesh& mesh) {
  BatchLayout layout;
  layout.sequence_length = config.model.sequence_length;
  layout.global_batch = config.train.global_batch;
  layout.data_rank = mesh.index(Axis::data);
  layout.data_size = mesh.degree(Axis::data);
  layout.micro_batch = config.train.micro_batch > 0 ? config.train.micro_batch
                                                    : layout.global_batch / layout.data_size;
  for (const PositionRange& segment :
       sequence_split_of(config, mesh.config()).segments(mesh.index(Axis::context)))
    layout.segments.push_back({segment.begin, segment.count});
  layout.with_documents = config.data.document_mask || config.data.restart_positions;
  layout.validate();
  return layout;
}

}  // namespace switchyard
