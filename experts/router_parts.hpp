// A router is score x select x weigh, three parts that can be exchanged one by one:
//   score   logits -> scores           how good each expert is for a token     softmax
//   select  scores -> choices          which experts the token goes to         the k largest
//   weigh   scores, choices -> weights  with what they enter the output         renormalised or not
// A part may have parameters of its own and looks at the tokens where it needs more than its
// operands. All arithmetic is fp32. A choice is a constant of the backward pass, so select has
// none: what is differentiable in a choice goes through the scores. A new kind of router is a new
// part and a line in make_router_parts(). Legend as in router.hpp.
#pragma once

#include <memory>

#include "experts/config.hpp"
#include "parallel/pass.hpp"

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

  // The gradients that meet at the scores.
  struct Gradient {
    TensorView dchosen;  // f32 [T, k], of the scores of the choices
    TensorView indices;  // i32 [T, k]
    TensorView slopes;   // f32 [S, E], of all scores of a sequence's tokens
    float z_slope = 0;   // of the sum over tokens of lse^2
  };
  // scores, lse: as forward left them. dlogits: f32 [T, E], written.
  virtual void backward(const RoutedTokens& tokens, const Gradient& gradient,
                        const TensorView& scores, const TensorView& lse,
                        const TensorView& dlogits) const = 0;
};

class Select {
 public:
  virtual ~Select() = default;
  // scores: f32 [T, E]. Written: indices i32 [T, k]; different experts for a token, -1: no expert.
  virtual void choose(const RoutedTokens& tokens, const TensorView& scores,
                      const TensorView& indices) const = 0;
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

struct RouterParts {
  std::unique_ptr<const Score> score;
  std::unique_ptr<const Select> select;
  std::unique_ptr<const Weigh> weigh;
};

// Those that the configuration names: softmax, top-k, and `normalize_top_k`.
RouterParts make_router_parts(const ExpertsConfig& config);

}  // namespace switchyard
