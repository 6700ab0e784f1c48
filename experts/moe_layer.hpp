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

namespace switchyard {

class MoeLayer {
 public:
  struct Saved {
    GateRecord gate;    // probs, lse, indices, weights, statistics (router.hpp)
    Route route;        // the frozen routing decision (dispatcher.hpp)
    BankSaved bank;     // x_rows [R, H], gate_up [R, 2 I] (expert_bank.hpp)
    Tensor expert_out;  // [T k, H]: what the experts returned, in slot-sorted row order
    // Sums of this micro-batch over this rank's tokens, already divided by the global counts of the
    // pass, not yet by the number of layers and not weighted.
    double balance_loss = 0;
    double z_loss = 0;
    std::vector<std::int64_t> expert_counts;  // [E] slots of this rank's tokens by expert
  };
  struct Scratch {
    Scratch(Device& device, const ExpertsConfig& config, std::int64_t hidden, DType compute,
            std::int64_t num_tokens, std::int64_t num_sequences, int expert_ranks, RowCapacity& capacity);
    RouterScratch router;
    DispatchScratch dispatch;
    BankScratch bank;
  };

  // Registers the parameters `prefix`.router.weight [E, H], `prefix`.experts.gate_up.weight
  // [E, 2 I, H] (gate rows first) and `prefix`.experts.down.weight [E, H, I].
  // num_layers: layers with experts; the auxiliary losses are means over them.
  MoeLayer(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
           std::int64_t hidden, DType compute, std::int64_t num_layers, RandomKey dropout_key,
           float output_std);

  Saved make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const;
  // The growable buffers of a Saved that has found its final place.
  static void register_buffers(Saved& saved, RowCapacity& capacity);

  void pack_weights();
  // x, y: [T, H] in the compute type. y is written.
  void forward(const TensorView& x, const TensorView& y, Saved& saved, Scratch& scratch,
               RowCapacity& capacity, const Pass& pass) const;
  // dy: gradient of y; may be changed. dx: written, includes the router's and the auxiliary losses'
  // gradients. Gradients of parameters are added to, and reported ready.
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx, Saved& saved,
                Scratch& scratch, const Pass& pass) const;

 private:
  ExpertsConfig config_;
  double num_layers_;
  RandomKey dropout_key_;
  Router router_;
  Dispatcher dispatcher_;
  ExpertBank bank_;
};

}  // namespace switchyard
