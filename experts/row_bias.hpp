// A learned vector that is added to every row of a product: y = x W^T + b. Legend: T rows, N
// columns.
#pragma once

#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class RowBias {
 public:
  // Registers the parameter of `spec`, [N]. compute: type of the rows.
  RowBias(ParameterStore& store, ParameterSpec spec, DType compute);
  // What backward() reads: the number 1 for each row, [T, 1] in the compute type.
  static Tensor make_ones(Device& device, std::int64_t num_rows, DType compute);

  void pack_weights();
  void add_to(const TensorView& y) const;  // [T, N] in the compute type
  // Adds the sum of the rows of dy to the gradient, and reports it ready. ones: at least T rows.
  void backward(const TensorView& dy, const Tensor& ones, const Pass& pass) const;

 private:
  Parameter& bias_;
  Tensor packed_;  // [1, N] in the compute type
};

}  // namespace switchyard
