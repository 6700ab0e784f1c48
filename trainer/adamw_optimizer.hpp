// AdamW over the parts of the buckets that this rank owns (ZeRO stage 1): moments exist only there.
// After update() each owner holds the new values of its part; GradientSync::gather_values() hands
// them to the other replicas. What is state has no moments and is left alone.
//
// Owns the moments; borrows the store, which must be allocated before and outlive it.
#pragma once

#include <vector>

#include "kernels/sums/adamw.hpp"
#include "parallel/parameter.hpp"
#include "trainer/config.hpp"

namespace switchyard {

class AdamW {
 public:
  AdamW(ParameterStore& store, const OptimizerConfig& config);
  AdamW(const AdamW&) = delete;
  AdamW& operator=(const AdamW&) = delete;

  // After the store rearranged parameters: what this rank counts in the norm is another part.
  void holders_changed();

  // Adds the squares of the summed gradients of this rank's part to sum, f64 [3], of which only
  // exact sums use more than the first (kernels/sums/sums.hpp); added up over all ranks of the
  // store's mesh they are the square of the model's gradient norm.
  void add_squared_norm(const TensorView& sum) const;
  // One update of values and moments from the summed gradients of the owned parts. `step` counts
  // from 1. decision: f32 [2], how gradients are clipped and whether there may be an update at all
  // (kernels/sums/adamw.hpp), which the host need not know yet.
  void update(std::int64_t step, double learning_rate, const TensorView& decision);

  // f32 [numel]: the moments of a range of store.owned_ranges() that is trained.
  TensorView moment1(const OwnedRange& range) const { return moment(moment1_, range); }
  TensorView moment2(const OwnedRange& range) const { return moment(moment2_, range); }

 private:
  double num_elements() const;  // of the whole model
  TensorView moment(const std::vector<Tensor>& moments, const OwnedRange& range) const;

  ParameterStore& store_;
  OptimizerConfig config_;
  std::vector<Tensor> moment1_;  // by bucket, f32 [part]; none of state
  std::vector<Tensor> moment2_;
  std::vector<kernels::AdamWTensor> tensors_;  // the owned ranges that are trained
  std::vector<TensorView> gradients_;          // of these, what this rank counts in the norm
};

}  // namespace switchyard
