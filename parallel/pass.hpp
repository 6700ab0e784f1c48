// What one forward and backward pass over a micro-batch needs to know beside the tensors: which
// tokens these are, what the losses are divided by, and whom to tell of weights needed and
// gradients finished.
#pragma once

#include <cstdint>

#include "kernels/sums/sums.hpp"
#include "parallel/gradient_sync.hpp"
#include "parallel/group/group.hpp"
#include "parallel/layer_order.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

// Exact mode: how terms of sums in double are rounded (kernels/sums/sums.hpp). Such sums of losses
// are not divided by how many terms there are. Otherwise all 0.
struct ExactFigures {
  kernels::ExactTerms token_loss;  // of a token, times its weight
  kernels::ExactTerms balance;     // of a sequence and layer
  kernels::ExactTerms z;           // of a token and layer
  kernels::ExactTerms score;       // of an expert for a token
  bool is_on() const { return token_loss.quantum > 0; }
};

struct Pass {
  bool training = true;  // dropout is active and gradients are wanted
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  // Token identity: row t is the token at position positions[t] of the sequence
  // sequence_ids[t / sequence_length].
  std::int64_t sequence_length = 0;  // rows of each sequence
  TensorView sequence_ids;           // i64 [num_sequences]
  TensorView positions;              // i32 [T]
  TensorView tokens;                 // i32 [T]: their ids; read by routers that go by them
  TensorView rotary_positions;       // i32 [T]; not positions where these restart at documents
  // Where sequences are split over context ranks: the positions of a whole sequence, of which
  // this rank holds sequence_length, and each token's number among those of the ranks that share
  // the micro-batch's sequences. Otherwise 0 and empty.
  std::int64_t split_length = 0;
  TensorView token_numbers;  // i32 [T]: sequence of the micro-batch * split_length + position
  // The last sequences of the micro-batch that are padding: without targets, and kept from experts.
  std::int64_t num_padding = 0;
  // Of the whole step: all ranks, all micro-steps. Losses and gradients are means over these, so
  // neither the layout nor the accumulation changes them.
  double num_global_tokens = 1;
  // The sum of the weights of all targets, where these do not count 1 each; otherwise 0. The
  // cross-entropy is a mean by weight.
  double target_weight = 0;
  double num_global_sequences = 1;
  // In training: which of the step's micro-steps this is. Each has as many tokens as the others.
  std::int64_t micro_step = 0;
  std::int64_t num_micro_steps = 1;
  ExactFigures exact;
  GradientSync* sync = nullptr;  // may be null (evaluation, generation, tests)
  LayerOrder* order = nullptr;   // may be null (generation, tests)
  Group* exchanging = nullptr;   // whose rows are under way during the computation; may be null

  double total_weight() const { return target_weight > 0 ? target_weight : num_global_tokens; }
  std::int64_t whole_length() const { return split_length > 0 ? split_length : sequence_length; }
  // To be called before a forward pass first reads the weights of a layer of the store.
  void needs(int layer) const {
    if (order != nullptr) order->needs(layer);
  }
  // To be called after the last addition to a parameter's gradient in a backward pass.
  void gradient_ready(const Parameter& parameter) const {
    if (sync != nullptr) sync->ready(parameter);
  }
  // To be called between blocks of long computations, so that exchanges under way advance.
  void poll() const {
    if (sync != nullptr) sync->progress();
    if (exchanging != nullptr) exchanging->progress();
  }
};

}  // namespace switchyard
