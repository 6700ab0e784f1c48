#include "trainer/batch_layout.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "experts/dispatch/dispatch_mistakes.hpp"
#include "experts/router/router_mistakes.hpp"
#include "parallel/placement.hpp"
#include "tensor/error.hpp"
#include "trainer/exact_units.hpp"
#include "trainer/placement/layer_placements.hpp"

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
  problem.compute = config.run.precision == Precision::bf16 ? DType::bf16 : DType::f32;
  problem.patterns.clear();
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer)
    if (config.model.mixer_of_layer(layer).is_attention())
      problem.patterns.push_back(config.model.key_pattern_of_layer(layer));
  return problem;
}

ParallelConfig exact_parallel(const Config& config) {
  ParallelConfig parallel = config.parallel;
  parallel.context_split.exact = config.numerics.exact;
  parallel.context_split.documents = config.data.document_mask;
  // Keys of distances go with all heads on every rank; heads that are convolutions are not shared.
  if ((config.model.has_distance_keys() || config.model.has_conv_heads()) &&
      parallel.context_split.ulysses == 0)
    parallel.context_split.ulysses = 1;
  return parallel;
}

ParallelConfig resolved_parallel(const Config& config, std::int64_t num_ranks) {
  const ParallelConfig parallel = exact_parallel(config);
  ParallelConfig legal = Mesh::resolved(parallel, num_ranks);
  if (legal.context == 1) return legal;
  const ContextProblem problem = context_problem(config, legal);
  return Mesh::resolved(with_chosen_context(problem, parallel), num_ranks);
}

SequenceSplit sequence_split_of(const Config& config, const ParallelConfig& parallel) {
  const ContextConfig& split = parallel.context_split;
  if (parallel.context == 1) return SequenceSplit(config.model.sequence_length);
  return {config.model.sequence_length, split.ring, split.ulysses, split.layout, split.pad};
}

namespace {

std::int64_t micro_batch_of(const Config& config, std::int64_t data_size) {
  return config.train.micro_batch > 0 ? config.train.micro_batch
                                      : config.train.global_batch / data_size;
}

// Tokens of a micro-batch, and the rows that routing may send to one rank, have 32-bit numbers.
std::vector<ConfigMistake> number_mistakes(const Config& config, const ParallelConfig& parallel) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const std::int64_t length = config.model.sequence_length;
  const std::int64_t micro_batch = micro_batch_of(config, parallel.data);
  if (micro_batch * length > most)
    return {{{"train.micro_batch", "model.sequence_length"},
             fmt::format("micro_batch x sequence_length = {} x {} = {} tokens of a micro-batch; at "
                         "most {} can be numbered, so make train.micro_batch or "
                         "model.sequence_length smaller",
                         micro_batch, length, micro_batch * length, most)}};
  const ExpertsConfig& experts = config.experts;
  if (experts.num_experts == 0 || experts.every == 0) return {};
  const Placement placement = placement_of(experts, parallel.expert);
  const std::int64_t num_local = micro_batch * sequence_split_of(config, parallel).max_local();
  // Below 2^31 tokens x 10^6 ranks x 10^3 choices: no overflow.
  const std::int64_t num_rows = max_rows_received(placement, num_local, experts.top_k);
  if (num_rows <= most) return {};
  return {{{"train.micro_batch", "model.sequence_length", "parallel.expert", "parallel.context",
            "experts.top_k"},
           fmt::format("of {} tokens of a rank's micro-batch (micro_batch {} x its part of "
                       "sequence_length {}) on {} ranks (parallel.expert), each to top_k {}, "
                       "routing may send {} rows to one rank; at most {} can be numbered, so make "
                       "train.micro_batch or model.sequence_length smaller, or parallel.context "
                       "larger",
                       num_local, micro_batch, length, parallel.expert, experts.top_k, num_rows,
                       most)}};
}

// Ranks hold whole segments of Infini-attention.
std::vector<ConfigMistake> segment_mistakes(const Config& config, std::int64_t num_ranks) {
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    const std::int64_t segment = config.model.mixer_of_layer(layer).segment;
    if (segment == 0) continue;
    const SequenceSplit split = sequence_split_of(config, resolved_parallel(config, num_ranks));
    for (int rank = 0; rank < split.num_ranks(); ++rank)
      for (const PositionRange& run : split.segments(rank))
        if (run.begin % segment != 0)
          return {{{"model.mixer", "parallel.context.layout", "model.sequence_length"},
                   fmt::format("a rank's part of a sequence would begin at position {}, within a "
                               "segment of {} tokens of layer {}; choose segments, sequence_length "
                               "or parallel.context so that every part has whole ones",
                               run.begin, segment, layer)}};
  }
  return {};
}

// Padded rows that ranks send each other, which buffers have room for.
std::vector<ConfigMistake> padding_mistakes(const Config& config, const ParallelConfig& parallel) {
  const ExpertsConfig& experts = config.experts;
  if (!experts.capacity_padding || parallel.expert == 1 || experts.num_experts == 0 ||
      experts.every == 0)
    return {};
  if (parallel.context > 1)
    return {{{"experts.capacity_padding", "parallel.context"},
             fmt::format("capacity_padding needs whole sequences, as the capacity is that of one, "
                         "and context = {} ranks share each; leave capacity_padding out or write "
                         "context: 1",
                         parallel.context)}};
  const std::int64_t length = config.model.sequence_length;
  const Placement placement = placement_of(experts, parallel.expert);
  const std::int64_t padded = placement.most_places() * experts.padded_rows(1, length);
  const std::int64_t most = length * std::min(experts.top_k, placement.most_places());
  if (padded <= most) return {};
  return {{{"experts.capacity_padding", "experts.capacity_factor", "parallel.expert"},
           fmt::format("with capacity_factor = {} the {} experts of a rank would get {} padded "
                       "rows of a sequence, more than the {} that its {} tokens can have there; "
                       "lower capacity_factor or leave capacity_padding out",
                       experts.capacity_factor, placement.most_places(), padded, most, length)}};
}

}  // namespace

std::vector<ConfigMistake> layout_mistakes(const Config& config, std::int64_t num_ranks) {
  if (auto wrong = Mesh::mistakes(config.parallel, num_ranks); !wrong.empty()) return wrong;
  const ParallelConfig legal = Mesh::resolved(config.parallel, num_ranks);
  if (legal.context > 1) {
    auto wrong = context_mistakes(context_problem(config, legal), exact_parallel(config));
    if (!wrong.empty()) return wrong;
  }
  if (config.model.has_distance_keys() && legal.context_split.ulysses > 1)
    return {{{"parallel.context.ulysses", "model.position.kind"},
             "position xl has a key of each distance for all heads, and ulysses gives heads to "
             "ranks; write ulysses: 1, or another model.position"}};
  if (legal.context > 1 && config.model.has_compressed_memory())
    return {
        {{"parallel.context", "model.mixer"},
         fmt::format("context = {} ranks share each sequence, and do not exchange the rows that "
                     "a compressed memory pools; write context: 1, or leave compressed out",
                     legal.context)}};
  if (auto wrong = exact_mistakes(config, legal); !wrong.empty()) return wrong;
  if (auto wrong = segment_mistakes(config, num_ranks); !wrong.empty()) return wrong;
  if (auto wrong = padding_mistakes(config, legal); !wrong.empty()) return wrong;
  if (config.run.device == RunDevice::cuda && config.model.has_recurrent_mixer())
    return {{{"run.device", "model.mixer"},
             "recurrent mixers are there on the CPU only; write run.device: cpu, or mixers of kind "
             "full or window"}};
  if (config.run.device == RunDevice::cuda)
    for (const auto mistakes : {router_mistakes_on_card, dispatch_mistakes_on_card})
      if (auto wrong = mistakes(config.experts); !wrong.empty()) return wrong;
  if (config.run.device == RunDevice::cuda && config.model.has_convolution())
    return {{{"run.device", "model.mixer"},
             "convolutions in front of mixers are there on the CPU only; write run.device: cpu, or "
             "leave conv out"}};
  if (config.run.device == RunDevice::cuda && config.model.has_conv_heads())
    return {{{"run.device", "model.mixer"},
             "heads that are convolutions (kind conv_attention) are there on the CPU only; write "
             "run.device: cpu, or mixers of kind full or window"}};
  if (config.run.device == RunDevice::cuda && config.model.has_spans())
    return {{{"run.device", "model.mixer"},
             "windows with learned spans (ramp) are there on the CPU only; write run.device: cpu, "
             "or leave ramp out"}};
  if (config.run.device == RunDevice::cuda && config.model.has_slots())
    return {{{"run.device", "model.mixer"},
             "memory slots beside the tokens of attention are there on the CPU only; write "
             "run.device: cpu, or leave slots out"}};
  if (config.run.device == RunDevice::cuda && config.model.has_blocks())
    return {
        {{"run.device", "model.mixer"},
         "attention by blocks and in segments is there on the CPU only; write run.device: cpu, or "
         "mixers of kind full or window"}};
  if (config.run.device == RunDevice::cuda && config.model.has_globals())
    return {{{"run.device", "model.mixer"},
             "windows beside which the first tokens are seen (globals) are there on the CPU only; "
             "write run.device: cpu, or leave globals out"}};
  if (config.run.device == RunDevice::cuda && config.model.scores_distances())
    return {{{"run.device", "model.position.kind"},
             "attention whose scores depend on distances (alibi, relative, xl) is there on the CPU "
             "only; "
             "write run.device: cpu, or another model.position"}};
  // A rank has the most rows where no sequence is cut: if those have numbers, it need not be chosen
  // here how to cut them.
  ParallelConfig uncut = legal;
  uncut.context = 1;
  if (number_mistakes(config, uncut).empty()) return {};
  return number_mistakes(config, resolved_parallel(config, num_ranks));
}

BatchLayout batch_layout_of(const Config& config, const Mesh& mesh) {
  BatchLayout layout;
  layout.sequence_length = config.model.sequence_length;
  layout.global_batch = config.train.global_batch;
  layout.data_rank = mesh.index(Axis::data);
  layout.data_size = mesh.degree(Axis::data);
  layout.micro_batch = micro_batch_of(config, layout.data_size);
  require_none(number_mistakes(config, mesh.config()));
  for (const PositionRange& segment :
       sequence_split_of(config, mesh.config()).segments(mesh.index(Axis::context)))
    layout.segments.push_back({segment.begin, segment.count});
  layout.with_weights = config.data.loss_mask;
  layout.with_documents = config.data.document_mask || config.data.restart_positions;
  layout.validate();
  return layout;
}

}  // namespace switchyard
