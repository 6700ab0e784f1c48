// Learned vectors, one an expert, that are added to the rows of a product of the expert bank:
// y[r] = (x W_e^T)[r] + b_e. Legend: L local experts, N columns.
#pragma once

#include "kernels/products/grouped_linear.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class ExpertBias {
 public:
  // Registers the parameter of `spec`, [E, N] with a slice of experts, or [N] of one network.
  // compute: type of the rows.
  ExpertBias(ParameterStore& store, ParameterSpec spec, DType compute);

  void pack_weights();
  // y: the rows of the block, whose groups are experts from `first_expert` on.
  void add_to(const TensorView& y, const kernels::RowBlock& block, std::int64_t first_expert) const;
  // Adds the sums of the rows of dy, of each expert, to the gradient. ones: [R, 1], of the type of
  // dy, in at least as many rows: the sum is a product with it, so exact sums and their order are
  // those of weights.
  void backward(const TensorView& dy, const kernels::UnitBlock& block, std::int64_t first_expert,
                const TensorView& ones) const;
  void report_gradient(const Pass& pass) const { pass.gradient_ready(bias_); }

 private:
  // A value or gradient as [L, N].
  TensorView by_expert(const TensorView& whole) const;

  Parameter& bias_;
  Tensor packed_;  // [L, N] in the compute type
};

}  // namespace switchyard
