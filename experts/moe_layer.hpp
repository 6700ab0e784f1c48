// A mixture-of-experts feed-forward layer: router -> dispatch -> experts -> combine. The experts of
// a layer are sharded over the ranks of the expert axis; tokens reach them by all-to-all, no token
// is dropped, and rows reach an expert in the order of token identity.
//   y_t = sum over the chosen experts e of w_{t,e} * expert_e(x_t)
// Modules hold parameters; what the backward pass reads is in Saved, what no one reads later is in
// Scratch, which all layers share.
// Legend: T tokens of this rank's micro-batch, S sequences, H hidden, I intermediate, E experts,
// k choices, R rows received by this rank, P ranks of the expert axis.
#pragma once

#include <string>
#include <vector>

#include "experts/config.hpp"
#include "experts/dispatcher.hpp"
#include "experts/expert_bank.hpp"
#include "experts/pass.hpp"
#include "experts/router.hpp"
#include "experts/row_capacity.hpp"
#include "tensor/random.hpp"

namespace switchyard {

class MoeLayer {
 public:
  struct Saved {
    GateRecord gate;  // probs, lse, indices, weights, statistics (router.hpp)
    Route route;      // the frozen routing decision (dispatcher.hpp)
    BankSaved bank;   // x_rows [R, H], gate_up [R, 2 I] (expert_bank.hpp)
    // [T k, H]: what the experts returned, in slot-sorted row order; with dropout, which goes by
    // the choices of a token, in slot order and already dropped.
    Tensor expert_out;
    // Sums of this micro-batch over this rank's tokens, already divided by the global counts of the
    // pass, not yet by the number of layers and not weighted.
    double balance_loss = 0;
    double z_loss = 0;
    std::vector<std::int64_t> expert_counts;  // [E] slots of this rank's tokens by expert
  };
  struct Scratch {
    Scratch(Device& device, const ExpertsConfig& config, std::int64_t hidden, DType compute,
            std::int64_t num_tokens, std::int64_t num_sequences, int expert_ranks,
            RowCapacity& capacity, int context_ranks = 1);
    RouterScratch router;
    DispatchScratch dispatch;
    BankScratch bank;
    Tensor by_slot;       // [T k, H] in slot order; only with dropout
    Tensor slot_numbers;  // i32 [T, k]: 0, 1, 2 ...; only with dropout
  };

  // Registers the parameters `prefix`.router.weight [E, H], `prefix`.experts.gate_up.weight
  // [E, 2 I, H] (gate rows first) and `prefix`.experts.down.weight [E, H, I].
  // num_layers: layers with experts; the auxiliary losses are means over them.
  // output_std: of the initial down weights; initial_std: of all others.
  MoeLayer(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
           std::int64_t hidden, DType compute, std::int64_t num_layers, RandomKey dropout_key,
           float output_std, float initial_std);

  // Room for this many tokens; a pass may bring fewer.
  Saved make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const;
  // The growable buffers of a Saved that has found its final place.
  static void register_buffers(Saved& saved, RowCapacity& capacity);

  void pack_weights();
  // x, y: [T, H] in the compute type. y is written.
  void forward(const TensorView& x, const TensorView& y, Saved& saved, Scratch& scratch,
               RowCapacity& capacity, const Pass& pass) const;
  // dy: gradient of y; may be changed, and may not be dx. x: as in forward. dx: written, includes
  // the router's and the auxiliary losses' gradients. Gradients of parameters are added to, and
  // reported ready.
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx, Saved& saved,
                Scratch& scratch, const Pass& pass) const;

 private:
  bool drops(const Pass& pass) const { return pass.training && config_.dropout > 0; }
  // by_slot: [T k, H] in slot order; the same mask in both passes.
  void drop(const TensorView& by_slot, const Pass& pass) const;
  // returned: [T k, H] rows as they came from the experts -> y [T, H].
  void combine(const TensorView& returned, const TensorView& y, Saved& saved,
               const Scratch& scratch, const Pass& pass) const;
  // dy [T, H] -> scratch.router.dweights and, in scratch.dispatch.slots, the gradient of what the
  // experts returned.
  void combine_backward(const TensorView& dy, const Saved& saved, Scratch& scratch,
                        const Pass& pass) const;

  ExpertsConfig config_;
  std::int64_t hidden_;
  DType compute_;
  Device& device_;
  RandomKey dropout_key_;
  Router router_;
  Dispatcher dispatcher_;
  ExpertBank bank_;
};

}  // namespace switchyard
