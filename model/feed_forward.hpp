// The feed-forward of a layer without experts: y = (silu(gate) * up) Wdown^T with
// [gate up] = x Wgate_up^T. It is a bank of one expert that takes every row.
// Legend: T tokens, H hidden, I dense_intermediate.
#pragma once

#include <string>

#include "experts/expert_bank.hpp"
#include "model/config.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

class FeedForward {
 public:
  // What the backward pass reads beside x, and can be computed again from x.
  struct Derived {
    Tensor gate_up;  // [T, 2 I]; or none: the backward computes it again, block by block

    void for_each_tensor(const RecordVisitor& visit);
  };
  struct Scratch {
    // unit_rows: tokens of a unit of exact sums; 0: none.
    Scratch(Device& device, const ModelConfig& model, DType compute, std::int64_t num_tokens,
            std::int64_t unit_rows = 0);
    BankScratch bank;
  };

  // Registers `prefix`.gate_up.weight [2 I, H] (gate rows first) and `prefix`.down.weight [H, I].
  FeedForward(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
              DType compute);

  Derived make_derived(std::int64_t num_tokens, bool keep_gate_up) const;
  void pack_weights() { bank_.pack_weights(); }

  // x, y: [T, H] in the compute type. y is written.
  void forward(const TensorView& x, const TensorView& y, Derived& derived, Scratch& scratch,
               const Pass& pass) const;
  // dy: gradient of y; dx: written. Gradients of weights are added to, and reported ready.
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                const Derived& derived, Scratch& scratch, const Pass& pass) const;

 private:
  Device& device_;
  DType compute_;
  std::int64_t intermediate_;
  ExpertBank bank_;
};

}  // namespace switchyard
