// A mixture-of-experts feed-forward layer: router -> dispatch -> experts -> combine. The experts of
// a layer are sharded over the ranks of the expert axis; tokens reach them by all-to-all, and rows
// reach an expert in the order of token identity.
//   y_t = sum over the chosen experts e of w_{t,e} * expert_e(x_t)  [+ shared experts(x_t)]
// With `experts.latent` the experts' tokens are of another width than H (latent_space.hpp); where
// it says W below, that is meant. Shared experts (shared_experts.hpp) work while rows are on the
// wire, in both directions. Modules hold parameters. What the backward pass reads is in Saved, the
// decision of the router, which is never taken again, and in Derived, which can be computed again
// from it and from x. What no one reads later is in Scratch, which all layers share. Legend: T
// tokens of this rank's micro-batch, S sequences, H hidden, I intermediate, E experts, k choices, R
// rows received by this rank, P ranks of the expert axis.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "experts/config.hpp"
#include "experts/dispatch/dispatcher.hpp"
#include "experts/expert_bank.hpp"
#include "experts/latent_space.hpp"
#include "experts/router/router.hpp"
#include "experts/row_capacity.hpp"
#include "experts/shared_experts.hpp"
#include "parallel/pass.hpp"
#include "tensor/random.hpp"

namespace switchyard {

class MoeLayer {
 public:
  struct Saved {
    GateRecord gate;  // scores, lse, indices, weights, statistics (router.hpp)
    Route route;      // the frozen routing decision (dispatcher.hpp)

    void for_each_tensor(const RecordVisitor& visit);
  };
  struct Derived {
    Tensor x_rows;   // compute type, growable [R, W]: the rows in expert order
    Tensor gate_up;  // compute type, growable [R, 2 I]; or none: the backward computes it again
    // [T k, W]: what the experts returned, in slot-sorted row order; more rows if they are padded.
    // With dropout, which goes by the choices of a token, in slot order and after it.
    Tensor expert_out;
    std::optional<SharedExperts::Derived> shared;
    // Growable [R, W]: what the experts returned, in their order; in place of expert_out, only
    // where it is added up on its way back (DispatchReturn).
    Tensor expert_rows;
    Tensor combined;  // [T, W]: what they returned, added up; only in a latent space

    // num_rows: R of the pass.
    void for_each_tensor(std::int64_t num_rows, const RecordVisitor& visit);
  };
  struct Scratch {
    Scratch(Device& device, const ExpertsConfig& config, std::int64_t hidden, DType compute,
            std::int64_t num_tokens, std::int64_t num_sequences, const Placement& placement,
            RowCapacity& capacity, const ContextSharing& sharing = {},
            std::int64_t num_whole_tokens = 0, const RowUnits& units = {});

    RouterScratch router;
    DispatchScratch dispatch;
    BankScratch bank;
    std::optional<SharedExperts::Scratch> shared;
    Tensor losses;        // f64 [2]: forward() adds the layer's balance and z loss (router.hpp)
    Tensor by_slot;       // [T k, W] in slot order; only with dropout
    Tensor latent;        // [T, W]: of x, then gradients; only in a latent space
    Tensor slot_numbers;  // i32 [T, k]: 0, 1, 2 ...; only with dropout
    // Only where rows may be taken in pieces (DispatchConfig::chunks, ExpertsConfig::max_rows).
    Tensor piece_offsets;       // i32 [local places + 1]: of the piece at hand, and
    Tensor piece_unit_offsets;  // i32 [local places * units + 1]: of units, in exact mode
    Tensor piece_rows;          // growable [R, W]

   private:
    void add_pieces(Device& device, const Placement& placement, DType compute,
                    const RowUnits& units, RowCapacity& capacity);
  };

  // Registers the parameters `prefix`.router.weight [E, H], `prefix`.experts.gate_up.weight
  // [E, 2 I, H] (gate rows first) and `prefix`.experts.down.weight [E, H, I], and those of
  // `prefix`.shared_experts and `prefix`.latent; W for H in a latent space.
  // parts: of the router (make_router_parts). placement: outlives the layer. num_layers: layers
  // with experts; the auxiliary losses are means over them. output_std: of the initial down
  // weights; initial_std: of all others.
  MoeLayer(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
           RouterParts parts, std::int64_t hidden, DType compute, const Placement& placement,
           std::int64_t num_layers, RandomKey dropout_key, float output_std, float initial_std);

  // Room for this many tokens; a pass may bring fewer.
  Saved make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const;
  Derived make_derived(std::int64_t num_tokens, std::int64_t num_sequences,
                       bool keep_gate_up) const;

  void pack_weights();
  // x, y: [T, H] in the compute type. y is written.
  void forward(const TensorView& x, const TensorView& y, Saved& saved, Derived& derived,
               Scratch& scratch, RowCapacity& capacity, const Pass& pass) const;
  // Fills `derived` as the forward pass did, from its x and `saved`: rows travel again, but nothing
  // is routed again.
  void rebuild(const TensorView& x, const Saved& saved, Derived& derived, Scratch& scratch,
               const Pass& pass) const;
  // dy: gradient of y; may be changed, and may not be dx. x: as in forward. dx: written, includes
  // the router's and the auxiliary losses' gradients. Gradients of parameters are added to, and
  // reported ready.
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx, const Saved& saved,
                const Derived& derived, Scratch& scratch, const Pass& pass) const;
  // After a step: see Router.
  void move_bias(const TensorView& counts, const TensorView& decision) const {
    router_.move_bias(counts, decision);
  }

 private:
  bool drops(const Pass& pass) const { return pass.training && config_.dropout > 0; }
  // by_slot: [T k, H] in slot order; the same mask in both passes.
  void drop(const TensorView& by_slot, const Pass& pass) const;
  // What the experts returned, added up by token: y, or in a latent space derived.combined.
  void combine(const TensorView& y, const Saved& saved, const Derived& derived,
               const Scratch& scratch, const Pass& pass) const;
  // The router's decision, and room for the rows that it sends.
  void decide(const TensorView& x, Saved& saved, Scratch& scratch, RowCapacity& capacity,
              const Pass& pass) const;
  // Of a route (Dispatcher::route).
  std::int64_t padded_rows(std::int64_t num_tokens, const Pass& pass) const;
  std::int64_t sequences_of_share(const Pass& pass) const;
  // The tokens that are sent, [T, W].
  TensorView sent_tokens(const TensorView& x, const Scratch& scratch) const;
  // The shared experts, called while rows are on their way, which the pass polls.
  using RunShared = std::function<void(const Pass& pass)>;
  // Of a computation beside which rows are under way.
  Pass beside_exchange(const Pass& pass) const;
  // x [T, H] -> derived: the rows go to the experts, through them and back, at once or in pieces.
  // Shared experts, if there are any, compute while the first are on their way.
  void run_experts(const TensorView& x, const Saved& saved, Derived& derived, Scratch& scratch,
                   const Pass& pass, const RunShared& run_shared) const;
  // The way back: the gradients of what the experts returned, in scratch.dispatch.slots, to those
  // of the rows that were sent. All rows at once; in chunks, with the gradients of weights while
  // the last ones travel; or, where rows are cut, in parts, whose x is sent again.
  TensorView run_experts_backward(const TensorView& x, const Saved& saved, const Derived& derived,
                                  Scratch& scratch, const Pass& pass,
                                  const RunShared& run_shared) const;
  TensorView backward_at_once(const Saved& saved, const Derived& derived, Scratch& scratch,
                              const Pass& pass, const RunShared& run_shared) const;
  TensorView backward_in_chunks(const Saved& saved, const Derived& derived, Scratch& scratch,
                                const Pass& pass, const RunShared& run_shared) const;
  TensorView backward_in_parts(const TensorView& x, const Saved& saved, Scratch& scratch,
                               const Pass& pass, const RunShared& run_shared) const;
  // The same where what experts return is added up on its way back (moe_layer_summed.cpp); backward
  // from the sums' gradient dy [T, W] to that of the tokens that were sent, dx [T, W].
  void run_experts_summed(const TensorView& x, const Saved& saved, Derived& derived,
                          Scratch& scratch, const Pass& pass, const RunShared& run_shared) const;
  void backward_summed(const TensorView& dy, const TensorView& dx, const Saved& saved,
                       const Derived& derived, Scratch& scratch, const Pass& pass,
                       const RunShared& run_shared) const;
  // In how many pieces the rows of a route go.
  int num_pieces(const Route& route) const;
  // For the bank. with_units: as the backward pass takes them.
  BankRows bank_rows(const Route& route, Piece piece, Scratch& scratch, bool with_units) const;
  // What of derived.expert_out is in use.
  TensorView returned_rows(const Saved& saved, const Derived& derived, const Pass& pass) const;
  // Where the row of a choice lies there: i32 [T, k].
  TensorView place_of_slot(const Saved& saved, const Scratch& scratch, const Pass& pass) const;
  // dy [T, W] -> scratch.router.dweights and, in scratch.dispatch.slots, the gradient of what the
  // experts returned.
  void combine_backward(const TensorView& dy, const Saved& saved, const Derived& derived,
                        Scratch& scratch, const Pass& pass) const;

  ExpertsConfig config_;
  std::int64_t width_;  // W
  DType compute_;
  Device& device_;
  std::int64_t unit_rows_;  // of exact sums; 0: none
  RandomKey dropout_key_;
  Router router_;
  Dispatcher dispatcher_;
  ExpertBank bank_;
  std::optional<SharedExperts> shared_;
  std::optional<LatentSpace> latent_;
};

}  // namespace switchyard
