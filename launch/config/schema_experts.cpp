// The keys of the section experts.
#include "launch/config/schema_fields.hpp"

namespace switchyard {
namespace {

// Which experts live where.
void add_placement(std::vector<Key>& keys) {
  using C = PlacementConfig;
  constexpr auto s = &Config::experts;
  constexpr auto g = &ExpertsConfig::placement;
  keys.push_back({.section = "experts",
                  .name = "placement.order",
                  .field = field<s, g, &C::order>(),
                  .range = from(0, million),
                  .empty_word = "in_order",
                  .description = "The experts in the order of their places: the first ones live on "
                                 "the first rank of the expert axis, and so on. Each once, or "
                                 "several times: on each of these ranks it then has a replica, "
                                 "which takes its share of the sequences. `in_order`: 0, 1, 2 ... "
                                 "Changes no result."});
  keys.push_back({.section = "experts",
                  .name = "placement.every",
                  .field = field<s, g, &C::every>(),
                  .unit = "steps",
                  .range = from(0, million),
                  .description = "After so many steps experts change places between ranks, layer "
                                 "by layer, so that the ranks have alike loads, as measured since "
                                 "the last time. Weights and moments move with them; what a step "
                                 "computes stays the same. Replicas that `order` or `replicas` "
                                 "made room for go to the experts with the most rows. 0: experts "
                                 "stay."});
  keys.push_back({.section = "experts",
                  .name = "placement.replicas",
                  .field = field<s, g, &C::replicas>(),
                  .unit = "experts",
                  .range = from(0, million),
                  .description = "With `every`: so many places more than experts, in each layer, "
                                 "for replicas of the experts that have the most rows. No rank "
                                 "has an expert twice. Each costs the memory of an expert."});
  keys.push_back({.section = "experts",
                  .name = "placement.least_gain",
                  .field = field<s, g, &C::least_gain>(),
                  .range = from(0, 1),
                  .description = "Two experts change places only if that takes at least this share "
                                 "of the mean rank's rows off the fullest rank."});
}

void add_shared_experts(std::vector<Key>& keys) {
  using C = SharedExpertsConfig;
  constexpr auto s = &Config::experts;
  constexpr auto g = &ExpertsConfig::shared;
  keys.push_back({.section = "experts",
                  .name = "shared.number",
                  .field = field<s, g, &C::number>(),
                  .unit = "experts",
                  .range = from(0, 10'000),
                  .description = "Shared experts of a layer: every token goes to all of them, "
                                 "beside the `top_k` that its router chooses. Each rank has them "
                                 "and computes them while tokens travel."});
  keys.push_back({.section = "experts",
                  .name = "shared.intermediate",
                  .field = field<s, g, &C::intermediate>(),
                  .unit = "elements",
                  .range = from(0, million),
                  .description = "Width inside one shared expert's SwiGLU; 0: `intermediate`."});
  keys.push_back({.section = "experts",
                  .name = "shared.gate",
                  .field = field<s, g, &C::gate>(),
                  .description = "What the output of the shared experts is multiplied by: `none`, "
                                 "nothing (DeepSeek); `sigmoid`, the sigmoid of a learned linear "
                                 "map of the token to one number (Qwen2-MoE)."});
}

// docs/routers.md has the formulas.
void add_router(std::vector<Key>& keys) {
  using C = RouterConfig;
  constexpr auto s = &Config::experts;
  constexpr auto g = &ExpertsConfig::router;
  keys.push_back(
      {.section = "experts",
       .name = "router.kind",
       .field = field<s, g, &C::kind>(),
       .description =
           "How a token's experts are chosen (docs/routers.md): `top_k`, by the largest scores; "
           "`noisy_top_k`, of logits with learned noise; `gshard`, the best, and at random the "
           "second best; `sinkhorn`, `base` and `expert_choice`, balanced over each sequence while "
           "training, which needs `allow_future`, and `top_k` elsewhere; `hash`, by the token's "
           "id; "
           "for benchmarks `balanced`, in turn, and `imbalanced`, with a given load."});
  keys.push_back({.section = "experts",
                  .name = "router.score",
                  .field = field<s, g, &C::score>(),
                  .description = "What logits become: probabilities of a softmax over the experts, "
                                 "or of each expert on its own (DeepSeek-V3)."});
  keys.push_back({.section = "experts",
                  .name = "router.softmax_over",
                  .field = field<s, g, &C::softmax_over>(),
                  .description = "With score `softmax`: the weights are those of a softmax over "
                                 "`all` experts, or over the `chosen` alone (gpt-oss), which is "
                                 "the same as `normalize_top_k: true`."});
  keys.push_back({.section = "experts",
                  .name = "router.scale",
                  .field = field<s, g, &C::scale>(),
                  .range = above(0),
                  .description = "Factor of the weights (DeepSeek-V3: 2.5)."});
  keys.push_back({.section = "experts",
                  .name = "router.groups",
                  .field = field<s, g, &C::groups>(),
                  .unit = "groups",
                  .range = from(1, million),
                  .description = "Groups that the experts are cut into, such as those of a node; a "
                                 "token chooses from its best `top_groups` alone."});
  keys.push_back({.section = "experts",
                  .name = "router.top_groups",
                  .field = field<s, g, &C::top_groups>(),
                  .unit = "groups",
                  .range = from(1, million),
                  .description = "Groups that a token's experts may be in."});
  keys.push_back({.section = "experts",
                  .name = "router.group_score",
                  .field = field<s, g, &C::group_score>(),
                  .description = "How groups are judged: by their `best` expert (DeepSeek-V2), or "
                                 "by the sum of their `best_two` (DeepSeek-V3), bias included."});
  keys.push_back({.section = "experts",
                  .name = "router.logit_bias",
                  .field = field<s, g, &C::logit_bias>(),
                  .description = "Whether a learned number for each expert is added to its logit "
                                 "(gpt-oss). It is trained as a weight is; `bias_rate` has "
                                 "another bias, which moves by rule."});
  keys.push_back({.section = "experts",
                  .name = "router.jitter",
                  .field = field<s, g, &C::jitter>(),
                  .range = rate(),
                  .description = "While training the router's input is multiplied by random "
                                 "numbers from 1 - `jitter` to 1 + `jitter` (Switch: 0.01)."});
  keys.push_back({.section = "experts",
                  .name = "router.capacity",
                  .field = field<s, g, &C::capacity>(),
                  .unit = "experts",
                  .range = from(0, million),
                  .description = "With `expert_choice`: experts that a token has on average, while "
                                 "`top_k` is the most that it may have; 0: `top_k`."});
  keys.push_back({.section = "experts",
                  .name = "router.imbalance",
                  .field = field<s, g, &C::imbalance>(),
                  .range = from(1, million),
                  .description = "With `imbalanced`: the load of the fullest expert, times the "
                                 "mean; the others follow a power law."});
  keys.push_back({.section = "experts",
                  .name = "router.balance_over",
                  .field = field<s, g, &C::balance_over>(),
                  .description = "Among which tokens `sinkhorn`, `base` and `expert_choice` "
                                 "balance: those of each `sequence`, so that no layout and no "
                                 "batch changes a choice."});
  keys.push_back({.section = "experts",
                  .name = "router.replay",
                  .field = field<s, g, &C::replay>(),
                  .unit = "none or path",
                  .description = "A trace of routing (docs/traces.md), or the run that has it: "
                                 "while training, each token goes to the experts that it had "
                                 "there, on any layout. Scores, weights and losses are computed "
                                 "as ever."});
  keys.push_back({.section = "experts",
                  .name = "capacity_factor",
                  .field = field<s, &ExpertsConfig::capacity_factor>(),
                  .range = from(0, million),
                  .description =
                      "While training an expert takes of each sequence at most this many times "
                      "the mean of its choices, rounded up; what is over is dropped "
                      "(`dropped_fraction`). Sequences do not know of each other, so no layout "
                      "changes what is dropped. 0: nothing is."});
  keys.push_back({.section = "experts",
                  .name = "drop_by",
                  .field = field<s, &ExpertsConfig::drop_by>(),
                  .description =
                      "With `capacity_factor`: `position`, the last tokens of the sequence are "
                      "dropped; `score`, those with the lowest scores, which needs "
                      "`allow_future`."});
  keys.push_back({.section = "experts",
                  .name = "capacity_padding",
                  .field = field<s, &ExpertsConfig::capacity_padding>(),
                  .description =
                      "With `capacity_factor`: whether a rank sends each expert as many rows as "
                      "that lets it take, the missing ones as zeros, so that messages and buffers "
                      "have the same sizes in every step, whatever the router does. Changes no "
                      "bit."});
  keys.push_back({.section = "experts",
                  .name = "allow_future",
                  .field = field<s, &ExpertsConfig::allow_future>(),
                  .description = "Whether a token's experts may depend on tokens that come after "
                                 "it, as with `sinkhorn`, `base` and `expert_choice`, and with "
                                 "`drop_by: score`."});
}

// docs/parallelism.md has what travels.
void add_dispatch(std::vector<Key>& keys) {
  using C = DispatchConfig;
  constexpr auto s = &Config::experts;
  constexpr auto g = &ExpertsConfig::dispatch;
  keys.push_back(
      {.section = "experts",
       .name = "dispatch.kind",
       .field = field<s, g, &C::kind>(),
       .description =
           "How tokens reach the ranks of their experts. `all_to_all`: once for each expert; "
           "`all_gather`: every token once to every rank, fewer bytes where a token has more "
           "experts "
           "than there are ranks; `hierarchical`: once to each node that has experts of it, from "
           "where it is sent on, fewer bytes between nodes. The kind changes no bit of a result "
           "(docs/parallelism.md)."});
  keys.push_back(
      {.section = "experts",
       .name = "dispatch.return",
       .field = field<s, g, &C::returns>(),
       .description =
           "How what experts return comes back: `rows`, once for each expert; `summed`, with "
           "`hierarchical`: added up on the node, in fp32, by weight, so that it comes back once "
           "from each node. Fewer bytes between nodes where experts of a token share one; agrees "
           "with `rows` to rounding (docs/parallelism.md)."});
  keys.push_back(
      {.section = "experts",
       .name = "dispatch.ranks_per_node",
       .field = field<s, g, &C::ranks_per_node>(),
       .unit = "ranks",
       .range = from(0, million),
       .description =
           "With `hierarchical`: neighbouring ranks of an expert group that make a node; "
           "0: those of a host. A plan knows no hosts and takes all ranks for one."});
  keys.push_back(
      {.section = "experts",
       .name = "dispatch.wire",
       .field = field<s, g, &C::wire>(),
       .description =
           "What rows are on the wire. `compute`: as they are computed with; `bf16`: rounded to "
           "that; "
           "`fp8`: tokens on their way to experts as e4m3 with a scale for each 128 elements, what "
           "the experts return and gradients as bf16. The errors are in docs/parallelism.md."});
  keys.push_back({.section = "experts",
                  .name = "dispatch.chunks",
                  .field = field<s, g, &C::chunks>(),
                  .unit = "pieces",
                  .range = from(1, 1'000),
                  .description =
                      "Pieces that an exchange of rows is cut into, each with a part of every "
                      "rank's experts, which compute while the next piece is on the wire; the "
                      "gradients of weights wait for the last one. No more than a rank has "
                      "experts. Needs memory for what these gradients read. Changes no bit."});
  keys.push_back(
      {.section = "experts",
       .name = "max_rows",
       .field = field<s, &ExpertsConfig::max_rows>(),
       .unit = "rows",
       .range = from(0, most_tokens),
       .description =
           "Rows (choices of tokens) that a rank holds at once for its experts, "
           "whatever the router does: if a rank receives more, all take theirs in parts, "
           "and the backward pass has them sent again. Slower, with the same bits. With "
           "`hierarchical` also tokens that a rank passes on: of more, all travel as rows. At "
           "least 2048; 0: all that come."});
}

}  // namespace

void add_experts(std::vector<Key>& keys) {
  using C = ExpertsConfig;
  constexpr auto s = &Config::experts;
  keys.push_back({.section = "experts",
                  .name = "num_experts",
                  .field = field<s, &C::num_experts>(),
                  .unit = "experts",
                  .range = from(0, million),
                  .description = "Experts of a layer, over all ranks; 0: a dense model."});
  keys.push_back({.section = "experts",
                  .name = "top_k",
                  .field = field<s, &C::top_k>(),
                  .unit = "experts",
                  .range = from(1, 1'000),
                  .description = "Experts that a token is sent to; at most `num_experts`."});
  keys.push_back({.section = "experts",
                  .name = "intermediate",
                  .field = field<s, &C::intermediate>(),
                  .unit = "elements",
                  .range = from(1, million),
                  .description = "Width inside one expert's SwiGLU."});
  keys.push_back({.section = "experts",
                  .name = "activation",
                  .field = field<s, &C::activation>(),
                  .description = "What lies between an expert's products, of shared experts too: "
                                 "`swiglu`, or `clamped_swiglu` (gpt-oss): (up + 1) gate "
                                 "sigmoid(`swiglu_alpha` gate), with the gate at most "
                                 "`swiglu_limit` and up within plus and minus that."});
  keys.push_back({.section = "experts",
                  .name = "swiglu_alpha",
                  .field = field<s, &C::swiglu_alpha>(),
                  .range = above(0),
                  .description = "With `clamped_swiglu`: see there."});
  keys.push_back({.section = "experts",
                  .name = "swiglu_limit",
                  .field = field<s, &C::swiglu_limit>(),
                  .range = above(0),
                  .description = "With `clamped_swiglu`: see there."});
  keys.push_back({.section = "experts",
                  .name = "bias",
                  .field = field<s, &C::bias>(),
                  .description = "Whether learned vectors, one an expert, are added to what both "
                                 "its products return (gpt-oss); of shared experts too."});
  keys.push_back({.section = "experts",
                  .name = "latent",
                  .field = field<s, &C::latent>(),
                  .unit = "elements",
                  .range = from(0, million),
                  .description =
                      "Width of the space that experts work in: a learned map takes tokens there "
                      "before they are sent, another one back what the experts return, so that "
                      "bytes on the wire and the experts' weights shrink with it; 0: `hidden`."});
  keys.push_back({.section = "experts",
                  .name = "every",
                  .field = field<s, &C::every>(),
                  .unit = "layers",
                  .range = from(0, 10'000),
                  .description = "Every how many layers one has experts: 1 all, 2 the second, "
                                 "fourth, ...; 0: no layer has."});
  keys.push_back({.section = "experts",
                  .name = "first_dense",
                  .field = field<s, &C::first_dense>(),
                  .unit = "layers",
                  .range = from(0, 10'000),
                  .description = "The first layers, which have no experts whatever `every` says."});
  add_shared_experts(keys);
  add_router(keys);
  add_dispatch(keys);
  add_placement(keys);
  keys.push_back({.section = "experts",
                  .name = "balance_weight",
                  .field = field<s, &C::balance_weight>(),
                  .range = from(0),
                  .description = "Weight of the load-balancing loss; 0: off."});
  keys.push_back({.section = "experts",
                  .name = "z_weight",
                  .field = field<s, &C::z_weight>(),
                  .range = from(0),
                  .description = "Weight of the z-loss, which keeps router logits small; 0: off."});
  keys.push_back({.section = "experts",
                  .name = "balance_reduction",
                  .field = field<s, &C::balance_reduction>(),
                  .description =
                      "How the balance and z losses of the layers make one: `sum` (Switch, "
                      "Megatron): each layer counts as if it were alone; `mean` (MegaBlocks, "
                      "OLMo-core): in a model of 4 layers with experts a quarter of that. A run "
                      "goes on with what it has had, unless this is set.",
                  .default_text = "`sum`; what a run that goes on has had"});
  keys.push_back(
      {.section = "experts",
       .name = "normalize_top_k",
       .field = field<s, &C::normalize_top_k>(),
       .description = "Whether the weights of the chosen experts are scaled to sum to 1. With "
                      "`top_k: 1` the one weight is then 1 (Mixtral's mathematics), and the router "
                      "learns nothing from the language model's loss: this gets a warning.",
       .default_text = "`true` if `top_k` is above 1 and the router no `expert_choice`"});
  keys.push_back({.section = "experts",
                  .name = "balance_scope",
                  .field = field<s, &C::balance_scope>(),
                  .description =
                      "Over which tokens the balance loss counts choices and takes its means. "
                      "`sequence`: within each sequence, which no layout and no accumulation can "
                      "change; `micro_step`: those of all ranks in a micro-step, so it depends on "
                      "which sequences share one; `step`: those of the step so far, so it depends "
                      "on their order, too."});
  keys.push_back({.section = "experts",
                  .name = "balance_loss",
                  .field = field<s, &C::balance_loss>(),
                  .description =
                      "What the balance loss is. `shares`: of the shares of choices and scores "
                      "(Switch); with router kind `noisy_top_k` also the squared variation from "
                      "expert to expert of `importance`, the sums of weights, of `load`, the "
                      "chances of being chosen, or of both (Shazeer et al. 2017; weight 0.1 "
                      "there). Over a sequence or a micro-step, as `balance_scope` says."});
  keys.push_back({.section = "experts",
                  .name = "bias_rate",
                  .field = field<s, &C::bias_rate>(),
                  .range = from(0),
                  .description =
                      "Balance without a loss (DeepSeek-V3: 0.001): a bias is added to each "
                      "expert's score for the choice alone, and after each step it rises by so "
                      "much where the expert was chosen less often than the mean, and falls where "
                      "more often. 0: no bias."});
  keys.push_back({.section = "experts",
                  .name = "bias_rule",
                  .field = field<s, &C::bias_rule>(),
                  .description =
                      "How the bias moves. `sign`: by `bias_rate`, up or down; `quantile` "
                      "(Megatron-LM, Kimi K3): by a share `bias_rate`, at most 1, of the way to "
                      "where the scores of the whole step would have given each expert the same "
                      "load (docs/routers.md)."});
  keys.push_back({.section = "experts",
                  .name = "dropout",
                  .field = field<s, &C::dropout>(),
                  .range = rate(),
                  .description = "Share of expert output elements dropped while training."});
}

}  // namespace switchyard
