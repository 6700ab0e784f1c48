// The shared experts of a layer: every token goes to all of them, beside those that its router
// chooses (Dai et al.: DeepSeekMoE, 2024).
//   y_t = [sigmoid(<w, x_t>)] * sum over the shared experts e of expert_e(x_t)
// The gate, one number a token, is Qwen2-MoE's; without it the factor is 1. A sum of SwiGLU
// networks is one network with their widths side by side, so they are a bank of one expert that
// takes every row. Each rank has all of them and computes its own tokens, while the rows of the
// others travel. Legend: T tokens, H hidden, I width inside all shared experts together.
#pragma once

#include <optional>
#include <string>

#include "experts/config.hpp"
#include "experts/expert_bank.hpp"
#include "experts/token_projection.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

class SharedExperts {
 public:
  // What the backward pass reads beside x, and can be computed again from x.
  struct Derived {
    Tensor gate_up;  // [T, 2 I]; or none: the backward computes it again
    Tensor out;      // [T, H] before the gate, and the gate, f32 [T, 1]; only with a gate
    Tensor gate;

    void for_each_tensor(const RecordVisitor& visit);
  };
  struct Scratch {
    // unit_rows: tokens of a unit of exact sums; 0: none.
    Scratch(Device& device, const ExpertsConfig& config, std::int64_t hidden, DType compute,
            std::int64_t num_tokens, std::int64_t unit_rows = 0);
    BankScratch bank;
    Tensor y;            // [T, H]: what they add to the layer's output; then their part of dx
    Tensor d_out;        // [T, H]; this and what follows only with a gate
    Tensor dgate;        // f32 [T, 1]
    Tensor row_numbers;  // i32 [T, 1]: 0, 1, 2 ...
    Tensor hidden_f32;   // of the projection
  };

  // Registers `prefix`.gate_up.weight [2 I, H] (gate rows first), `prefix`.down.weight [H, I] and,
  // with a gate, `prefix`.gate.weight [1, H].
  SharedExperts(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
                std::int64_t hidden, DType compute, float output_std, float initial_std);

  Derived make_derived(std::int64_t num_tokens, bool keep_gate_up) const;
  void pack_weights();

  // x: [T, H] in the compute type. Fills derived; gives what is to be added to the layer's output,
  // in scratch.y.
  TensorView forward(const TensorView& x, Derived& derived, Scratch& scratch,
                     const Pass& pass) const;
  // Fills `derived` as the forward pass did.
  void rebuild(const TensorView& x, Derived& derived, Scratch& scratch, const Pass& pass) const;
  // dy: gradient of the layer's output. Gives what is to be added to that of x, in scratch.y.
  // Gradients of parameters are added to, and reported ready.
  TensorView backward(const TensorView& dy, const TensorView& x, const Derived& derived,
                      Scratch& scratch, const Pass& pass) const;

 private:
  Device& device_;
  DType compute_;
  std::int64_t hidden_;
  std::int64_t width_;
  ExpertBank bank_;
  std::optional<TokenProjection> gate_;
};

}  // namespace switchyard
