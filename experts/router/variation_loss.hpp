// The balance loss of noisy top-k: how far importances and loads of experts vary, within each
// sequence or over the tokens of all ranks in a micro-step (kernels/routing/noisy_load.hpp has the
// formulas). Sums are of whole sequences, or of the whole micro-step, before slopes are taken, so
// no layout changes value or gradient. Nothing with another balance loss. Legend as in router.hpp.
#pragma once

#include "experts/config.hpp"
#include "kernels/routing/noisy_load.hpp"
#include "parallel/mesh.hpp"
#include "parallel/pass.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

// What the loss of a pass is made of; what it does not need is empty.
struct VariationSums {
  VariationSums() = default;
  VariationSums(Device& device, const ExpertsConfig& config, std::int64_t num_sequences);
  void for_each_tensor(const RecordVisitor& visit);

  Tensor importance;  // f64 [S, E]
  Tensor load;        // f64 [S, E]
};

class VariationLoss {
 public:
  VariationLoss(const ExpertsConfig& config, const Mesh& mesh);
  bool is_on() const { return config_.balance_loss != BalanceLoss::shares; }

  // What routing left: weights f32 [T, k], indices i32 [T, k] and counts i32 [S, E] before any
  // choice is dropped; the choice with its noise, while training.
  struct Routed {
    TensorView weights, indices, counts;
    kernels::NoisyChoice choice;
  };
  void forward(const Routed& routed, const Pass& pass, VariationSums& sums) const;
  // Adds the mean over the step's sequences to losses[0], each sequence counted by one rank.
  void add(const VariationSums& sums, std::int64_t num_sequences, const Pass& pass,
           const TensorView& losses) const;

  // The gradients of weight * (the sum over pools, sequences or micro-steps), added: to dweights
  // f32 [T, k] of the choices `indices`; to dlogits f32 [T, E]; to the raw deviations of the noise,
  // f32 [T, E], what does not reach them through the logits. slopes: f32 [S, E], written.
  void add_weight_gradient(const VariationSums& sums, double weight, const TensorView& indices,
                           const TensorView& slopes, const TensorView& dweights) const;
  void add_logit_gradient(const VariationSums& sums, double weight,
                          const kernels::NoisyChoice& choice, const TensorView& slopes,
                          const TensorView& dlogits) const;
  void add_noise_gradient(const VariationSums& sums, double weight,
                          const kernels::NoisyChoice& choice, const TensorView& slopes,
                          const TensorView& draw) const;

 private:
  void complete(const TensorView& sums, const Pass& pass) const;

  ExpertsConfig config_;
  Group& context_;
  Group& all_ranks_;  // that have tokens
};

}  // namespace switchyard
