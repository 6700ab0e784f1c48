// What one forward and backward pass over a micro-batch needs to know beside the tensors: which
// tokens these are, what the losses are divided by, and whom to tell of finished gradients.
#pragma once

#include <cstdint>

#include "parallel/gradient_sync.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

struct Pass {
  bool training = true;  // dropout is active and gradients are wanted
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  // Token identity: row t is the token at position positions[t] of the sequence
  // sequence_ids[t / sequence_length].
  std::int64_t sequence_length = 0;  // rows of each sequence
  TensorView sequence_ids;           // i64 [num_sequences]
  TensorView positions;              // i32 [T]
  TensorView rotary_positions;       // i32 [T]; not positions where these restart at documents
  // Of the whole step: all ranks, all micro-steps. Losses and gradients are means over these, so
  // neither the layout nor the accumulation changes them.
  double num_global_tokens = 1;
  double num_global_sequences = 1;
  GradientSync* sync = nullptr;  // may be null (evaluation, generation, tests)

  // To be called after the last addition to a parameter's gradient in a backward pass.
  void gradient_ready(const Parameter& parameter) const {
    if (sync != nullptr) sync->ready(parameter);
  }
  // To be called between blocks of long computations, so that exchanges under way advance.
  void poll() const {
    if (sync != nullptr) sync->progress();
  }
};

}  // namespace switchyard
