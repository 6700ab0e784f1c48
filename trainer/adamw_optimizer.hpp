// AdamW over the parts of the buckets that this rank owns (ZeRO stage 1): moments exist only there.
// After update() each owner holds the new values of its part; GradientSync::gather_values() hands
// them to the other replicas. What is state has no moments and is left alone.
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

  // Of the summed gradients of this rank's part; added up over all ranks of the store's mesh it is
  // the square of the model's gradient norm.
  double squared_norm_of_owned() const;
  // One update of values and moments from the summed gradients of the owned parts. `step` counts
  // from 1. gradient_norm: of the whole model, before clipping, and finite: whether an update may
  // be made at all the caller decides, who also knows the loss.
  void update(std::int64_t step, double learning_rate, double gradient_norm);

  // f32 [numel]: the moments of a range of store.owned_ranges() that is trained.
  TensorView moment1(const OwnedRange& range) const { return moment(moment1_, range); }
  TensorView moment2(const OwnedRange& range) const { return moment(moment2_, range); }

 private:
  TensorView moment(const std::vector<Tensor>& moments, const OwnedRange& range) const;

  ParameterStore& store_;
  OptimizerConfig config_;
  std::vector<OwnedRange> ranges_;  // those that are trained
  std::vector<Tensor> moment1_;     // by bucket, f32 [part]; none of state
  std::vector<Tensor> moment2_;
};

}  // namespace switchyard
