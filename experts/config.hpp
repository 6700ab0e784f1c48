// Key `experts` of a configuration.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "experts/router_config.hpp"
#include "kernels/routing/select_sequences.hpp"
#include "kernels/rows/clamped_swiglu.hpp"
#include "kernels/rows/wire_rows.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

// Over which tokens the balance loss counts choices and takes its means: each sequence; the tokens
// of all ranks in a micro-step; those of the step so far, this micro-step included.
enum class BalanceScope : std::uint8_t { sequence, micro_step, step };
constexpr std::array<std::string_view, 3> choice_names(BalanceScope) {
  return {"sequence", "micro_step", "step"};
}

// How the bias of the choice is moved after a step (docs/routers.md). sign: by bias_rate, up or
// down; quantile: by a share bias_rate of the way to where the step's scores would have given each
// expert the same load.
enum class BiasRule : std::uint8_t { sign, quantile };
constexpr std::array<std::string_view, 2> choice_names(BiasRule) {
  return {"sign", "quantile"};
}

// What the balance loss is: of the shares of choices and scores (Switch Transformers); or, with
// noisy top-k, of how far the sums of weights vary from expert to expert, or the chances of being
// chosen, or both (Shazeer et al. 2017; kernels/routing/noisy_load.hpp).
enum class BalanceLoss : std::uint8_t { shares, importance, load, importance_and_load };
constexpr std::array<std::string_view, 4> choice_names(BalanceLoss) {
  return {"shares", "importance", "load", "importance_and_load"};
}
constexpr bool has_importance(BalanceLoss loss) {
  return loss == BalanceLoss::importance || loss == BalanceLoss::importance_and_load;
}
constexpr bool has_load(BalanceLoss loss) {
  return loss == BalanceLoss::load || loss == BalanceLoss::importance_and_load;
}

// How the auxiliary losses of the layers with experts make one. sum: as in Switch Transformers and
// Megatron, where each layer counts as much as if it were alone; mean: as in MegaBlocks and
// OLMo-core.
enum class BalanceReduction : std::uint8_t { mean, sum };
constexpr std::array<std::string_view, 2> choice_names(BalanceReduction) {
  return {"mean", "sum"};
}

// The gate of shared experts: none, or a sigmoid of a linear map of the token (Qwen2-MoE).
enum class SharedGate : std::uint8_t { none, sigmoid };
constexpr std::array<std::string_view, 2> choice_names(SharedGate) {
  return {"none", "sigmoid"};
}

// What lies between an expert's products (kernels/rows/swiglu.hpp, clamped_swiglu.hpp).
enum class ExpertActivation : std::uint8_t { swiglu, clamped_swiglu };
constexpr std::array<std::string_view, 2> choice_names(ExpertActivation) {
  return {"swiglu", "clamped_swiglu"};
}

// Experts that every token goes to, beside those that the router chooses.
struct SharedExpertsConfig {
  std::int64_t number = 0;
  std::int64_t intermediate = 0;  // width of one; 0: that of a routed expert
  SharedGate gate = SharedGate::none;
};

// How tokens reach the ranks of their experts (docs/parallelism.md). all_to_all: a row for each
// choice; the others send a token once, to all ranks or by way of nodes
// (experts/dispatch/token_delivery.hpp).
enum class DispatchKind : std::uint8_t { all_to_all, all_gather, hierarchical };
constexpr std::array<std::string_view, 3> choice_names(DispatchKind) {
  return {"all_to_all", "all_gather", "hierarchical"};
}

// How what experts return comes back: as a row for each choice; or, with hierarchical, added up
// where a token came to a node (experts/dispatch/token_return.hpp).
enum class DispatchReturn : std::uint8_t { rows, summed };
constexpr std::array<std::string_view, 2> choice_names(DispatchReturn) {
  return {"rows", "summed"};
}

struct DispatchConfig {
  DispatchKind kind = DispatchKind::all_to_all;
  DispatchReturn returns = DispatchReturn::rows;
  // hierarchical: neighbouring ranks of an expert group that make a node; 0: those of a host.
  std::int64_t ranks_per_node = 0;
  // What rows are on the wire. fp8: tokens on their way to experts; what these return, and
  // gradients, are bf16.
  kernels::WireFormat wire = kernels::WireFormat::compute;
  kernels::WireFormat wire_back() const {
    return wire == kernels::WireFormat::fp8 ? kernels::WireFormat::bf16 : wire;
  }
  // Pieces of an exchange, each with a part of every rank's experts: these compute while the next
  // piece is on the wire. 1: all rows at once.
  std::int64_t chunks = 1;
};

// Which experts live on which rank of the expert axis (parallel/placement.hpp).
struct PlacementConfig {
  std::vector<std::int64_t> order;  // the experts by place: each once or, with replicas, several
                                    // times; empty: in order
  std::int64_t every = 0;           // steps after which experts move to where loads are alike; 0:
                                    // they stay
  std::int64_t replicas = 0;        // places more than experts, for replicas of those that have the
                                    // most rows each time; `order` then is empty
  double least_gain = 0.02;  // rows that an exchange of two experts must take off the fullest rank,
                             // as a share of the mean rank's
};

struct ExpertsConfig {
  std::int64_t num_experts = 8;
  std::int64_t top_k = 2;
  std::int64_t intermediate = 1024;  // width of one expert's SwiGLU
  std::int64_t every = 1;            // layer l has experts if (l + 1) % every == 0; 0: no layer has
  std::int64_t first_dense = 0;      // and if l >= first_dense
  double balance_weight = 0.01;
  double z_weight = 0.001;
  // Over layers, of both. In a file that leaves it out a run goes on with what it has had: `mean`
  // in those of versions that knew nothing else.
  BalanceReduction balance_reduction = BalanceReduction::sum;
  bool normalize_top_k = true;  // in a configuration file that leaves it out: top_k > 1
  BalanceScope balance_scope = BalanceScope::sequence;
  BalanceLoss balance_loss = BalanceLoss::shares;
  // Of the bias that is added to an expert's scores for the choice alone: after each step it moves
  // by so much towards balance (kernels/routing/choice_counts.hpp). 0: there is none.
  double bias_rate = 0;
  BiasRule bias_rule = BiasRule::sign;
  double dropout = 0;  // of expert outputs, by token, expert choice and element

  // Of routed and shared experts.
  ExpertActivation activation = ExpertActivation::swiglu;
  double swiglu_alpha = 1.702;  // of clamped_swiglu
  double swiglu_limit = 7;
  bool bias = false;  // of both products

  std::int64_t latent = 0;  // width of the space that the experts work in; 0: the model's

  SharedExpertsConfig shared = {};
  RouterConfig router = {};
  PlacementConfig placement = {};
  // While training, of each sequence of L tokens an expert takes at most capacity_factor L k / E
  // choices, rounded up, and the others are dropped. 0: none is.
  double capacity_factor = 0;
  kernels::DropBy drop_by = kernels::DropBy::position;
  // Whether every message and buffer of rows has room for what experts may take then, so that their
  // sizes are the same in every step.
  bool capacity_padding = false;
  DispatchConfig dispatch = {};
  // Rows that a rank holds at once on the side of its experts: of more it takes part by part. 0:
  // all that it receives.
  std::int64_t max_rows = 0;
  bool allow_future = false;  // whether a router may be one that sees the future

  // None with plain SwiGLU.
  std::optional<kernels::SwigluClamp> swiglu_clamp() const {
    if (activation == ExpertActivation::swiglu) return std::nullopt;
    return kernels::SwigluClamp{static_cast<float>(swiglu_alpha), static_cast<float>(swiglu_limit)};
  }
  std::int64_t capacity_of(std::int64_t sequence_length) const {
    const double even =
        static_cast<double>(sequence_length * top_k) / static_cast<double>(num_experts);
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(capacity_factor * even)));
  }
  // Rows that a rank with so many sequences sends each expert, whatever these chose; 0: as many as
  // there are.
  std::int64_t padded_rows(std::int64_t num_sequences, std::int64_t sequence_length) const {
    if (!capacity_padding) return 0;
    return num_sequences * std::min(capacity_of(sequence_length), sequence_length);
  }
  // Whether the weights of a token's experts sum to the router's scale.
  bool weights_are_shares() const {
    return normalize_top_k || router.softmax_over == SoftmaxOver::chosen || !router.has_weights();
  }

  bool layer_has_experts(std::int64_t layer) const {
    return num_experts > 0 && every > 0 && layer >= first_dense && (layer + 1) % every == 0;
  }
  bool any_layer_has_experts(std::int64_t num_layers) const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (layer_has_experts(layer)) return true;
    return false;
  }
  // The weights of the means over layers of the auxiliary losses, where so many layers have them.
  double reduced(double weight, std::int64_t num_moe_layers) const {
    return balance_reduction == BalanceReduction::sum ? weight * static_cast<double>(num_moe_layers)
                                                      : weight;
  }
  // Whether a choice may be taken back after it was made.
  bool may_drop() const {
    return router.kind == RouterKind::gshard || capacity_factor > 0 || router.replays();
  }
  bool has_quantiles() const { return bias_rate > 0 && bias_rule == BiasRule::quantile; }
  // Whether the choices of a whole step are counted.
  bool counts_step() const {
    return (bias_rate > 0 && !has_quantiles()) || balance_scope == BalanceScope::step;
  }
  // Of the tokens as experts see them.
  std::int64_t width_of(std::int64_t hidden) const { return latent > 0 ? latent : hidden; }
  // Whether rows between this many ranks may be taken in pieces.
  bool has_pieces(int num_ranks) const {
    return num_ranks > 1 && (dispatch.chunks > 1 || max_rows > 0);
  }
  // Inside all shared experts together, which are one network; 0: there are none.
  std::int64_t shared_width() const {
    return shared.number * (shared.intermediate > 0 ? shared.intermediate : intermediate);
  }
};

}  // namespace switchyard
