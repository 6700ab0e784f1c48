// A router is score x select x weigh, three parts that can be exchanged one by one:
//   score   logits -> scores           how good each expert is for a token     softmax, sigmoid
//   select  scores -> choices          which experts the token goes to         the k largest, ...
//   weigh   scores, choices -> weights  with what they enter the output         renormalised or not
// All arithmetic is fp32. A choice is a constant of the backward pass, so select has none: what is
// differentiable in a choice goes through the scores. Which parts there are, by the configuration:
// docs/routers.md. A new kind of router is a new part and a line in make_router_parts(). Legend as
// in router.hpp.
#pragma once

#include <memory>
#include <string>

#include "experts/config.hpp"
#include "kernels/rows/elementwise.hpp"
#include "parallel/pass.hpp"
#include "tensor/random.hpp"

namespace switchyard {

// The tokens that are routed: x [T, H] in the compute type, and who they are.
struct RoutedTokens {
  TensorView x;
  const Pass& pass;
  TensorView bias = {};  // f32 [E]: added to the scores for the choice alone; empty: none
};

class Score {
 public:
  virtual ~Score() = default;
  // logits: f32 [T, E]. Written: scores f32 [T, E], lse f32 [T] (log sum exp of the logits, for the
  // z-loss).
  virtual void forward(const RoutedTokens& tokens, const TensorView& logits,
                       const TensorView& scores, const TensorView& lse) const = 0;
  // The scores as shares that sum to 1, which balance losses take sums of: themselves, or written
  // to `room`, f32 [T, E].
  virtual TensorView shares(const TensorView& scores, const TensorView& room) const = 0;

  // The gradients that meet at the scores.
  struct Gradient {
    TensorView dchosen;  // f32 [T, k], of the scores of the choices
    TensorView indices;  // i32 [T, k]
    TensorView slopes;   // f32 [S, E], of all shares of a sequence's tokens
    float z_slope = 0;   // of the sum over tokens of lse^2
  };
  // scores, lse: as forward left them; logits too, where the record has them (GateRecord::logits).
  // dlogits: f32 [T, E], written.
  virtual void backward(const RoutedTokens& tokens, const Gradient& gradient,
                        const TensorView& logits, const TensorView& scores, const TensorView& lse,
                        const TensorView& dlogits) const = 0;
};

class Select {
 public:
  virtual ~Select() = default;
  // scores: f32 [T, E]. Written: indices i32 [T, k]; different experts for a token, -1: no expert.
  virtual void choose(const RoutedTokens& tokens, const TensorView& scores,
                      const TensorView& indices) const = 0;
  // Whether `scores` are to be the logits, which it may then overwrite.
  virtual bool looks_at_logits() const { return false; }
  // Whether it needs the tokens of whole sequences while training.
  virtual bool sees_future() const { return false; }
  // Whether choices are given up (-1) after they have been weighed: their weights stay in the sums
  // that others are divided by, and their scores keep that gradient.
  virtual bool gives_up(const Pass& /*pass*/) const { return false; }
  // weights: f32 [T, k]; indices: i32 [T, k], changed.
  virtual void give_up(const RoutedTokens& /*tokens*/, const TensorView& /*weights*/,
                       const TensorView& /*indices*/) const {}
};

class Weigh {
 public:
  virtual ~Weigh() = default;
  // Written: weights f32 [T, k].
  virtual void forward(const TensorView& scores, const TensorView& indices,
                       const TensorView& weights) const = 0;
  // Written: dchosen f32 [T, k], the gradient of the chosen scores; it may be dweights.
  virtual void backward(const TensorView& dweights, const TensorView& scores,
                        const TensorView& indices, const TensorView& dchosen) const = 0;
};

// Of what is random in the router of a layer.
struct RouterKeys {
  RandomKey noise{}, jitter{}, choice{};
};
// layer: its name, such as "layers.0".
RouterKeys router_keys(std::uint64_t seed, const std::string& layer);

struct RouterParts {
  std::unique_ptr<const Score> score;
  std::unique_ptr<const Select> select;
  std::unique_ptr<const Weigh> weigh;
  RouterKeys keys;
};

// Those that the configuration names.
RouterParts make_router_parts(const ExpertsConfig& config, const RouterKeys& keys = {});

// The tokens of a pass, one copy each, for what is random or numbered by them.
kernels::DropoutSite token_site(RandomKey key, const Pass& pass, std::int64_t num_tokens);
TensorView sequence_ids_of(const Pass& pass, std::int64_t num_tokens);

}  // namespace switchyard
