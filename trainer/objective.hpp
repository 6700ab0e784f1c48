// What the model is to learn of a batch: which tokens it reads, what it is to say after each of
// them, and how much each of these targets counts. It stands between the data, which brings text in
// its order, and the device batch, which brings tensors to the model. The loss of a step is
//   sum over its targets of weight * loss / sum over its targets of weight
// over all ranks and micro-steps, so neither the layout nor the accumulation changes it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/loader.hpp"

namespace switchyard {

// Of this rank's rows [S n]. Borrowed from the batch and the objective, until its next call.
struct Examples {
  std::span<const std::int32_t> tokens;
  std::span<const std::int32_t> targets;  // kernels::no_target: nothing is asked here
  std::span<const float> weights;         // finite, not below 0; empty: every target counts 1
};

class Objective {
 public:
  virtual ~Objective() = default;
  // Whether examples() gives weights.
  virtual bool has_weights() const = 0;
  // On the plan device a batch has no tokens, and the examples neither.
  virtual Examples examples(const Batch& batch) = 0;
  // The sum of the weights of all targets of `num_sequences` whole sequences, on all ranks: what
  // the losses and gradients of a step are divided by. Known since examples() of any of its
  // batches.
  virtual double total_weight(std::int64_t num_sequences) const = 0;
};

// After every token the next one. Each counts 1, or what the batches' weights say where the layout
// has them (a loss mask). Rows of padding have no target.
class CausalObjective final : public Objective {
 public:
  // layout: of the batches.
  explicit CausalObjective(const BatchLayout& layout) : layout_(layout) {}
  bool has_weights() const override { return layout_.with_weights; }
  Examples examples(const Batch& batch) override;
  // With weights: what the last batch said of its step or evaluation; before the first one, and on
  // the plan device, as if all counted.
  double total_weight(std::int64_t num_sequences) const override;

 private:
  BatchLayout layout_;
  std::vector<std::int32_t> targets_;  // of a batch with padding
  double num_targets_ = 0;             // of the last batch
};

}  // namespace switchyard
