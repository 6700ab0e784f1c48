// Native sparse attention (Yuan et al. 2025): a layer has three branches, each with a softmax of
// its own, over summaries of blocks, over chosen blocks and over the window; a token weighs what a
// head has of each by
//   out = sum over the branches c of sigmoid(x Wgate^T)[c, h] out_c
// Outputs of branches lie behind each other: [3 T, A D]. Legend: T tokens, H hidden, A num_heads,
// D head_dim.
#pragma once

#include <string>

#include "kernels/products/linear.hpp"
#include "model/config.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class BranchGates {
 public:
  static constexpr std::int64_t num_branches = 3;
  struct Scratch {
    Tensor d_gates;   // f32 [T, 3 A]
    Tensor d_logits;  // [T, 3 A], of the compute type
    Tensor d_branch;  // [T, A D]: of one branch
    Tensor d_qkv;     // [T, (A + 2 G) D]: of those before
  };

  // Registers `prefix`.gate.weight [3 A, H].
  BranchGates(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
              DType compute);

  Tensor make_gates(std::int64_t num_tokens, Purpose purpose) const;
  Tensor make_branches(std::int64_t num_tokens, Purpose purpose) const;
  Scratch make_scratch(std::int64_t num_tokens) const;
  // Rows of branch c.
  static TensorView branch(const TensorView& of_all, std::int64_t c) {
    const std::int64_t rows = of_all.rows() / num_branches;
    return of_all.slice_rows(c * rows, (c + 1) * rows);
  }

  void pack_weights() { packed_.pack(weight_.value()); }
  // gates: f32 [T, 3 A], written.
  void forward(const TensorView& x, const TensorView& gates) const;
  void combine(const TensorView& branches, const TensorView& gates, const TensorView& out) const;
  // The gradient of branch c, written.
  void backward_of_branch(const TensorView& dout, const TensorView& gates, std::int64_t c,
                          const TensorView& d_branch) const;
  // Those of the gates: leaves what x gets in scratch.d_logits, adds to the weight's and reports
  // it.
  void backward(const TensorView& dout, const TensorView& branches, const TensorView& gates,
                const TensorView& x, const Scratch& scratch, const Pass& pass) const;
  // dx: added to.
  void add_to_input(const Scratch& scratch, const TensorView& dx) const;

 private:
  Device& device_;
  std::int64_t num_heads_, head_dim_, qkv_cols_;
  DType compute_;
  Parameter& weight_;
  kernels::PackedWeight packed_;
};

}  // namespace switchyard
