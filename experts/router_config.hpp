// Key `experts.router` of a configuration. docs/routers.md has the formulas and where they are
// from.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/routing/select.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

// How a token's experts are chosen.
enum class RouterKind : std::uint8_t {
  top_k,          // the largest scores
  noisy_top_k,    // of logits with learned noise
  gshard,         // the best, and at random the second best
  sinkhorn,       // the largest of a balanced plan over the sequence
  base,           // a balanced assignment over the sequence
  expert_choice,  // experts choose tokens of the sequence
  hash,           // by the token's id
  balanced,       // in turn, whatever the scores
  imbalanced      // a given load, whatever the scores
};
constexpr std::array<std::string_view, 9> choice_names(RouterKind) {
  return {"top_k",         "noisy_top_k", "gshard",   "sinkhorn",  "base",
          "expert_choice", "hash",        "balanced", "imbalanced"};
}

enum class RouterScore : std::uint8_t { softmax, sigmoid };
constexpr std::array<std::string_view, 2> choice_names(RouterScore) {
  return {"softmax", "sigmoid"};
}

// Whether the softmax is over all logits or over those of the chosen experts.
enum class SoftmaxOver : std::uint8_t { all, chosen };
constexpr std::array<std::string_view, 2> choice_names(SoftmaxOver) {
  return {"all", "chosen"};
}

// Among which tokens the routers that balance do so.
enum class BalanceOver : std::uint8_t { sequence };
constexpr std::array<std::string_view, 1> choice_names(BalanceOver) {
  return {"sequence"};
}

struct RouterConfig {
  RouterKind kind = RouterKind::top_k;
  RouterScore score = RouterScore::softmax;
  SoftmaxOver softmax_over = SoftmaxOver::all;
  double scale = 1;  // of the weights
  std::int64_t groups = 1;
  std::int64_t top_groups = 1;
  kernels::GroupScore group_score = kernels::GroupScore::best;
  bool logit_bias = false;  // a learned number for each expert, added to its logits
  double jitter = 0;
  double capacity = 0;   // expert_choice: experts that a token has on average; 0: top_k
  double imbalance = 2;  // imbalanced: the fullest expert's load by the mean
  BalanceOver balance_over = BalanceOver::sequence;
  // The trace whose choices training takes over, or "none". Everything but the choice is computed
  // as ever.
  std::string replay = "none";

  // A token's experts depend on tokens that come after it.
  bool sees_future() const {
    return kind == RouterKind::sinkhorn || kind == RouterKind::base ||
           kind == RouterKind::expert_choice;
  }
  bool replays() const { return replay != "none"; }
  // The choice looks at scores, so the router has weights that learn.
  bool has_weights() const { return kind != RouterKind::hash; }
  // What kernels for a card there are.
  bool runs_on_card() const {
    const bool has_kernels =
        kind == RouterKind::top_k || kind == RouterKind::hash || kind == RouterKind::balanced;
    return has_kernels && jitter == 0 && groups <= kernels::most_groups_on_card;
  }
};

}  // namespace switchyard
