// The router of a layer: a linear map to one logit per expert, then score x select x weigh
// (router_parts.hpp). All in fp32 whatever the compute type. Its decision and the statistics for
// the auxiliary losses are a GateRecord, which the backward pass reads; nothing routes again. Where
// a sequence is split over context ranks, its counts are summed over them (integers), so that every
// rank has the statistics of whole sequences; the sums of scores stay this rank's own, since the
// losses are sums over ranks. Where the balance loss looks at more than a sequence, the counts are
// those of a pool of tokens (the micro-step's of all ranks, or the step's so far), the same for all
// its sequences. A bias for the choice is state, which moves once a step. Legend as in
// moe_layer.hpp; n tokens of a sequence on this rank, T = S n.
#pragma once

#include <optional>
#include <string>

#include "experts/config.hpp"
#include "experts/router/router_parts.hpp"
#include "experts/router/variation_loss.hpp"
#include "experts/row_bias.hpp"
#include "experts/token_projection.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

// Rows may be fewer than were allocated: the first T tokens and S sequences are in use.
struct GateRecord {
  GateRecord() = default;
  GateRecord(Device& device, const ExpertsConfig& config, std::int64_t num_tokens,
             std::int64_t num_sequences, bool exact = false);
  void for_each_tensor(const RecordVisitor& visit);

  Tensor scores;      // f32 [T, E]
  Tensor logits;      // f32 [T, E]; only where their gradient needs them (sigmoid, noisy load)
  Tensor noise;       // f32 [T, E]: the raw noise of noisy top-k, before its softplus; or none
  Tensor considered;  // i32 [T, k]: the choices before some were given up; only where they may be
  Tensor lse;         // f32 [T]: log sum exp of a token's logits
  Tensor indices;     // i32 [T, k]: chosen experts, or -1
  Tensor weights;     // f32 [T, k]: of the choices in the layer's output
  Tensor counts;      // i32 [S, E]: slots by expert, of a whole sequence or of its pool
  // [S, E]: over this rank's tokens of a sequence, f32; or, exact, over all of its tokens, f64.
  Tensor score_sums;
  VariationSums variation;
};

struct RouterScratch {
  // num_whole_tokens: of the micro-batch's sequences on all ranks that share them; 0: not split.
  RouterScratch(Device& device, const ExpertsConfig& config, std::int64_t hidden, DType compute,
                std::int64_t num_tokens, std::int64_t num_sequences,
                std::int64_t num_whole_tokens = 0);

  Tensor logits;    // f32 [T, E], and their gradient
  Tensor dweights;  // f32 [T, k], written by the combine's backward; then of the chosen scores
  Tensor slopes;    // f32 [S, E]: of the balance loss to the scores
  Tensor pool;      // i64 [E]: slots by expert of this rank's tokens, then of the pool
  // i64 [E]: where the layer at work counts the slots of this rank's tokens since the step began,
  // dropped ones included. Of whoever runs the layers; empty: nobody counts.
  TensorView step_counts;
  // i64 [E, B]: where it counts the margins of this rank's tokens since the step began
  // (kernels/routing/bias_quantiles.hpp); the same.
  TensorView margins;
  // i64 [1]: where it adds up the entropies of tokens (kernels/routing/routing_figures.hpp); the
  // same.
  TensorView entropy;
  // i32 [T, k] each: the choices that the layer at work takes over while training, before some
  // were given up and after. Of whoever runs the layers; empty: it chooses itself.
  struct Replayed {
    TensorView considered;
    TensorView indices;
  };
  Replayed replayed;
  Tensor hidden_f32;  // of the projections: x, then dx
  Tensor ones;        // f32 [T, 1], of the bias of logits; only with one
  // Of whole sequences, where these are split and what is chosen or dropped depends on all of one:
  Tensor whole_scores;   // f32 [tokens, E]
  Tensor whole_indices;  // i32 [tokens, k]
};

class Router {
 public:
  // Registers `prefix`.router.weight [E, H], and `prefix`.router.noise.weight [E, H] of noisy
  // top-k; neither where the choice needs no scores. With a bias_rate, `prefix`.router.bias [E];
  // with a logit_bias `prefix`.router.logit_bias [E].
  // parts: what it computes with; see make_router_parts().
  Router(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
         RouterParts parts, std::int64_t hidden, std::int64_t num_layers, float initial_std);

  void pack_weights();
  // x: [T, H] in the compute type. Fills the record.
  void forward(const TensorView& x, GateRecord& gate, RouterScratch& scratch,
               const Pass& pass) const;
  // Adds this layer's balance and z loss to losses, f64 [2]: sums over this rank's tokens, already
  // divided by the global counts of the pass, not yet by the number of layers and not weighted.
  void add_losses(const GateRecord& gate, std::int64_t num_tokens, const Pass& pass,
                  const TensorView& losses) const;
  // Reads scratch.dweights. Adds the gradients through the weights and of the auxiliary losses to
  // dx [T, H] and to the parameter's gradient.
  void backward(const TensorView& x, const GateRecord& gate, RouterScratch& scratch,
                const TensorView& dx, const Pass& pass) const;
  // After a step. counts: of all ranks, i64 [E] its slots, dropped ones included, or by quantiles
  // [E B] its margins; decision: f32 [2], whether the step counts (kernels/sums/step_figures.hpp).
  // Nothing without a bias.
  void move_bias(const TensorView& counts, const TensorView& decision) const;

 private:
  Jitter jitter_of(const Pass& pass, std::int64_t num_tokens) const;
  bool replays(const Pass& pass) const { return config_.router.replays() && pass.training; }
  // What is dropped of the choices, when they are counted.
  void drop(const TensorView& scores, const TensorView& indices, const RouterScratch& scratch,
            const Pass& pass) const;
  bool adds_noise(const Pass& pass) const { return noise_.has_value() && pass.training; }
  void project(const TensorView& x, const TensorView& logits, GateRecord& gate,
               RouterScratch& scratch, const Pass& pass) const;
  void choose(const RoutedTokens& tokens, const TensorView& logits, GateRecord& gate,
              RouterScratch& scratch) const;
  void select(const RoutedTokens& tokens, const TensorView& logits, GateRecord& gate,
              RouterScratch& scratch) const;
  // rows: of this rank's tokens -> those of the sequences' tokens on all context ranks, in `room`.
  TensorView whole_of(const Tensor& room, const TensorView& rows, const Pass& pass) const;
  void drop_in_whole_sequences(const TensorView& scores, const TensorView& indices,
                               const RouterScratch& scratch, const Pass& pass) const;
  void choose_in_whole_sequences(const RoutedTokens& tokens, const TensorView& scores,
                                 const TensorView& indices, RouterScratch& scratch) const;
  // Whose slots a row of gate.counts tells, and how many such rows the step has.
  struct Pool {
    std::int64_t num_tokens = 0;
    double times = 1;
  };
  Pool pool_of(const Pass& pass) const;
  // counts: i32 [S, E] of this rank's tokens of each sequence -> those of the sequence's pool.
  void count(const TensorView& counts, RouterScratch& scratch, const Pass& pass) const;
  kernels::NoisyChoice noisy_choice(const GateRecord& gate, const Pass& pass,
                                    std::int64_t num_tokens) const;
  // The slopes of the auxiliary losses and of the weights, down to the logits.
  void backward_to_logits(const TensorView& x, const GateRecord& gate, RouterScratch& scratch,
                          const TensorView& slopes, const TensorView& dlogits,
                          const Pass& pass) const;
  TensorView bias() const { return bias_ != nullptr ? bias_->value() : TensorView{}; }

  ExpertsConfig config_;
  double num_layers_;  // by which the weights of its losses are divided
  Group& context_;
  Group& all_ranks_;  // that have tokens
  std::optional<TokenProjection> projection_;
  std::optional<RowBias> logit_bias_;
  std::optional<TokenProjection> noise_;
  RouterParts parts_;
  VariationLoss variation_;
  Parameter* bias_ = nullptr;  // f32 [E], state
};

}  // namespace switchyard
