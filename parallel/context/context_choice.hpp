// Which way of sharing a sequence is best for a model: the attention of every legal scheme runs on
// a plan device (ContextAttention itself, with the group of a plan), whose profile says what a rank
// sends and computes, whose ledger what it holds, and whose clocks (tensor/plan_stream.hpp) how
// much of the one hides behind the other. Nothing is measured: two figures of the machine price a
// FLOP and a byte (ContextConfig::rank_flops and link_bytes), so all ranks choose alike.
//
// A pair of a query and a key counts 4 head_dim FLOPs forward and 8 backward, as everywhere
// (kernels/plan/attention.cpp). So a hop of the zigzag ring is hidden, with n positions a rank, g
// query heads to a kv head, b bytes an element, F FLOP/s and B bytes/s, if
//   n >= b (F / B) / g forward       n >= (2 b + 8) / 4 (F / B) / g backward, gradients being fp32
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/key_ranges.hpp"
#include "parallel/mesh.hpp"

namespace switchyard {

// The attention of a micro-batch.
struct ContextProblem {
  std::int64_t length = 0;
  std::int64_t num_sequences = 1;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  DType compute = DType::bf16;                       // of keys and values
  std::vector<kernels::KeyPattern> patterns = {{}};  // of each layer
};

// One direction, summed over the layers. Each figure is of the rank that has most of it.
struct PassCost {
  double wire_bytes = 0;
  double compute_seconds = 0;
  double wire_seconds = 0;
  double seconds = 0;     // what is left when the one hides the other as far as it can
  bool is_hidden = true;  // whether messages add nothing to the computation
  // The share of wire_seconds beside which something was computed; 1 without messages.
  double hidden_share() const {
    if (wire_seconds == 0) return 1;
    return std::clamp((compute_seconds + wire_seconds - seconds) / wire_seconds, 0.0, 1.0);
  }
};

struct SchemeCost {
  std::int64_t ring = 1;
  std::int64_t ulysses = 1;
  ContextMethod method = ContextMethod::ring;  // or all_gather
  PassCost forward = {};
  PassCost backward = {};
  // Blocks that travel and scratch, which all layers share. Scratch follows the threads of a rank.
  std::int64_t memory_bytes = 0;
  double seconds() const { return forward.seconds + backward.seconds; }
  std::string text() const;  // "ring 4 x ulysses 2"
};

// The legal schemes that `parallel` leaves open, in a fixed order; exact ones, if it says so.
// ConfigError with the reason for each if there is none.
std::vector<SchemeCost> scheme_costs(const ContextProblem& problem, const ParallelConfig& parallel);

// A mistake if a method is asked for by name that ContextConfig::exact rules out, on any ranks.
std::vector<ConfigMistake> method_mistakes(const ContextConfig& config);

// Those reasons, for what with_chosen_context() would throw.
std::vector<ConfigMistake> context_mistakes(const ContextProblem& problem,
                                            const ParallelConfig& parallel);

// Fills in ring, ulysses and method ("auto") by the least seconds, of equals the first. Leaves what
// is decided as it is.
ParallelConfig with_chosen_context(const ContextProblem& problem, const ParallelConfig& parallel);

}  // namespace switchyard
