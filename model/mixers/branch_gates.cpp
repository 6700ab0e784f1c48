#include "model/mixers/branch_gates.hpp"

#include "kernels/attention/attention.hpp"
#include "kernels/attention/gated_sum.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/swiglu.hpp"
#include "model/parameter_spec.hpp"

namespace switchyard {

BranchGates::BranchGates(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                         DType compute)
    : device_(store.device()),
      num_heads_(model.num_heads),
      head_dim_(model.effective_head_dim()),
      qkv_cols_(model.query_cols() + 2 * model.key_cols()),
      compute_(compute),
      weight_(store.add(weight_spec(prefix + ".gate.weight",
                                    {num_branches * model.num_heads, model.hidden},
                                    "model.num_heads, model.hidden", model.initial_std))),
      packed_(store.device(), num_branches * model.num_heads, model.hidden, compute) {}

Tensor BranchGates::make_gates(std::int64_t num_tokens, Purpose purpose) const {
  return {device_, purpose, DType::f32, {num_tokens, num_branches * num_heads_}};
}

Tensor BranchGates::make_branches(std::int64_t num_tokens, Purpose purpose) const {
  return {device_, purpose, compute_, {num_branches * num_tokens, num_heads_ * head_dim_}};
}

BranchGates::Scratch BranchGates::make_scratch(std::int64_t num_tokens) const {
  const auto make = [&](std::int64_t cols) {
    return Tensor(device_, Purpose::workspace, compute_, {num_tokens, cols});
  };
  return {.d_gates = make_gates(num_tokens, Purpose::workspace),
          .d_logits = make(num_branches * num_heads_),
          .d_branch = make(num_heads_ * head_dim_),
          .d_qkv = make(qkv_cols_)};
}

void BranchGates::forward(const TensorView& x, const TensorView& gates) const {
  kernels::linear_forward(x, packed_, gates);
  kernels::sigmoid_forward(gates, gates);
}

void BranchGates::combine(const TensorView& branches, const TensorView& gates,
                          const TensorView& out) const {
  kernels::gated_sum(branches, gates, num_heads_, out);
}

void BranchGates::backward_of_branch(const TensorView& dout, const TensorView& gates,
                                     std::int64_t c, const TensorView& d_branch) const {
  kernels::gated_sum(dout, gates.slice_cols(c * num_heads_, (c + 1) * num_heads_), num_heads_,
                     d_branch);
}

void BranchGates::backward(const TensorView& dout, const TensorView& branches,
                           const TensorView& gates, const TensorView& x, const Scratch& scratch,
                           const Pass& pass) const {
  for (std::int64_t c = 0; c < num_branches; ++c)
    kernels::attention_delta(branch(branches, c), dout, head_dim_,
                             scratch.d_gates->slice_cols(c * num_heads_, (c + 1) * num_heads_));
  kernels::sigmoid_backward(scratch.d_gates, gates, scratch.d_gates);
  kernels::copy(scratch.d_gates, scratch.d_logits);
  kernels::linear_backward_weight(scratch.d_logits, x, weight_.gradient_sum());
  pass.gradient_ready(weight_);
}

void BranchGates::add_to_input(const Scratch& scratch, const TensorView& dx) const {
  kernels::linear_backward_input(scratch.d_logits, packed_, dx, kernels::Accumulate::yes);
}

}  // namespace switchyard
