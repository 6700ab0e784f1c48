// AdamW over the parts of the buckets that this rank owns (ZeRO stage 1): moments exist only there.
// After update() each owner holds the new values of its part; GradientSync::gather_values() hands
// them to the other replicas.
//
// Owns the moments; borrows the store, which must be allocated before and outlive it.
#pragma once

#include <vector>

#include "parallel/parameter.hpp"
#include "trainer/config.hpp"

namespace switchyard {

class AdamW {
 public:
  AdamW(ParameterStore& store, const OptimizerConfig& config);
  AdamW(const AdamW&) = delete;
  AdamW& operator=(const AdamW&) = delete;

  // One update from the summed gradients of the owned parts. `step` counts from 1. Returns the
  // global norm of the gradient before clipping, the same on every rank. If it is not finite
  // nothing is changed, and the caller decides (the trainer stops with a NumericalError).
  // Collective over `world`, which must be all ranks of the store's mesh.
  double update(std::int64_t step, double learning_rate, Group& world);

  // f32 [numel]: the moments of a range of store.owned_ranges().
  TensorView moment1(const OwnedRange& range) const { return moment(moment1_, range); }
  TensorView moment2(const OwnedRange& range) const { return moment(moment2_, range); }

 private:
  TensorView moment(const std::vector<Tensor>& moments, const OwnedRange& range) const;
  double global_norm(Group& world) const;

  ParameterStore& store_;
  OptimizerConfig config_;
  std::vector<OwnedRange> ranges_;
  std::vector<Tensor> moment1_;  // by bucket, f32 [part]
  std::vector<Tensor> moment2_;
};

}  // namespace switchyard
