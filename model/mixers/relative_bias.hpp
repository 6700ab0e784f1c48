// Relative positions as T5 has them (Raffel et al. 2020): each head adds a learned number to the
// score of a query and a key, one for each bucket of their distance
// (kernels/attention/distance_bias.hpp). T5 shares the numbers of its first layer with all others;
// here every layer has its own, so that its gradient is ready with the layer.
// Legend: T tokens, A num_heads, U buckets, N = max_distance + 1 distances.
#pragma once

#include <string>
#include <vector>

#include "kernels/attention/distance_bias.hpp"
#include "model/config.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class RelativeBias {
 public:
  // Registers `prefix`.relative.weight [A, U], which starts at zero and does not decay.
  RelativeBias(ParameterStore& store, const std::string& prefix, const ModelConfig& model);

  // The bucket of each distance; none unless positions are relative.
  static std::vector<std::int32_t> buckets(const ModelConfig& model);

  void pack_weights();
  kernels::DistanceBias bias() const { return {values_, buckets_, table_.spec().global_shape[1]}; }
  // d_rows: f32 [T, A U], of each row by itself; ones: f32 [T, 1]. Adds to the gradient, and
  // reports it ready.
  void backward(const TensorView& d_rows, const TensorView& ones, const Pass& pass) const;

 private:
  Parameter& table_;
  std::vector<std::int32_t> buckets_;
  Tensor values_;
};

}  // namespace switchyard
