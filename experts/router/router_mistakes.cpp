#include "experts/router/router_mistakes.hpp"

#include <fmt/format.h>

namespace switchyard {

namespace {

class Mistakes {
 public:
  explicit Mistakes(const ExpertsConfig& config)
      : experts_(config), router_(config.router), kind_(name_of(config.router.kind)) {}

  std::vector<ConfigMistake> find() {
    check_kind();
    check_scores();
    check_groups();
    check_loads();
    check_capacity();
    check_balance_loss();
    check_bias_rule();
    return std::move(found_);
  }

 private:
  void add(std::vector<std::string_view> keys, std::string text) {
    found_.push_back({std::move(keys), std::move(text)});
  }

  void check_kind() {
    if (router_.sees_future() && !experts_.allow_future)
      add({"experts.router.kind", "experts.allow_future"},
          fmt::format("kind {} lets a token's experts depend on tokens that come after it, which "
                      "training then learns from and generation does not have; write "
                      "allow_future: true if that is meant, or another kind",
                      kind_));
    if (router_.kind == RouterKind::gshard && experts_.top_k != 2)
      add({"experts.top_k", "experts.router.kind"},
          fmt::format("kind gshard has a first and a second expert, and top_k is {}; write 2",
                      experts_.top_k));
    if (router_.kind == RouterKind::gshard && !experts_.normalize_top_k)
      add({"experts.normalize_top_k", "experts.router.kind"},
          "kind gshard keeps its second expert with a probability by its share of both scores; "
          "leave normalize_top_k out");
    const bool has_biased_choice = router_.kind == RouterKind::top_k ||
                                   router_.kind == RouterKind::noisy_top_k ||
                                   router_.kind == RouterKind::gshard;
    if (experts_.bias_rate > 0 && !has_biased_choice)
      add({"experts.bias_rate", "experts.router.kind"},
          fmt::format("a bias moves the choice of the largest scores, and kind {} chooses in "
                      "another way; leave bias_rate out or change the kind",
                      kind_));
    if (router_.logit_bias && !router_.has_weights())
      add({"experts.router.logit_bias", "experts.router.kind"},
          fmt::format("kind {} has no logits; leave logit_bias out or change the kind", kind_));
    constexpr std::int64_t most_of_base = 4096;
    if (router_.kind == RouterKind::base && experts_.num_experts > most_of_base)
      add({"experts.num_experts", "experts.router.kind"},
          fmt::format("kind base assigns to at most {} experts, and num_experts is {}",
                      most_of_base, experts_.num_experts));
  }

  void check_scores() {
    const bool is_sigmoid = router_.score == RouterScore::sigmoid;
    if (is_sigmoid &&
        (router_.kind == RouterKind::noisy_top_k || router_.kind == RouterKind::gshard))
      add({"experts.router.score", "experts.router.kind"},
          fmt::format("kind {} is defined with a softmax; leave score out", kind_));
    if (router_.softmax_over == SoftmaxOver::chosen && is_sigmoid)
      add({"experts.router.softmax_over", "experts.router.score"},
          "score sigmoid has no softmax; leave softmax_over out");
    else if (router_.softmax_over == SoftmaxOver::chosen && !experts_.normalize_top_k)
      add({"experts.router.softmax_over", "experts.normalize_top_k"},
          "a softmax over the chosen sums to 1; leave normalize_top_k out");
    if (!router_.has_weights() && router_.jitter > 0)
      add({"experts.router.jitter", "experts.router.kind"},
          fmt::format("kind {} does not look at the token's vector; leave jitter out", kind_));
    if (!router_.has_weights() && is_sigmoid)
      add({"experts.router.score", "experts.router.kind"},
          fmt::format("kind {} has no scores; leave score out", kind_));
  }

  void check_groups() {
    if (router_.groups == 1 && router_.top_groups == 1) return;
    if (router_.kind != RouterKind::top_k) {
      add({"experts.router.groups", "experts.router.kind"},
          fmt::format("groups count only with kind top_k, not with {}; leave them out", kind_));
      return;
    }
    if (experts_.num_experts % router_.groups != 0) {
      add({"experts.router.groups", "experts.num_experts"},
          fmt::format("num_experts / groups = {} / {} is not whole", experts_.num_experts,
                      router_.groups));
      return;
    }
    if (router_.top_groups > router_.groups) {
      add({"experts.router.top_groups", "experts.router.groups"},
          fmt::format("top_groups = {} is more than groups = {}; lower it", router_.top_groups,
                      router_.groups));
      return;
    }
    const std::int64_t reach = experts_.num_experts / router_.groups * router_.top_groups;
    if (experts_.top_k > reach)
      add({"experts.router.top_groups", "experts.router.groups", "experts.top_k"},
          fmt::format("top_k = {} is more than the {} experts of top_groups = {} groups; raise "
                      "top_groups or lower top_k",
                      experts_.top_k, reach, router_.top_groups));
  }

  void check_loads() {
    if (router_.capacity > 0 && router_.kind != RouterKind::expert_choice)
      add({"experts.router.capacity", "experts.router.kind"},
          fmt::format("capacity counts only with kind expert_choice, not with {}; leave it out",
                      kind_));
    if (router_.capacity > static_cast<double>(experts_.num_experts))
      add({"experts.router.capacity", "experts.num_experts"},
          fmt::format("a token has at most num_experts = {} experts, and capacity is {}",
                      experts_.num_experts, router_.capacity));
    const double most =
        static_cast<double>(experts_.num_experts) / static_cast<double>(experts_.top_k);
    if (router_.kind == RouterKind::imbalanced && router_.imbalance > most)
      add({"experts.router.imbalance", "experts.num_experts", "experts.top_k"},
          fmt::format("an expert gets a token once, so at most num_experts / top_k = {} / {} = {} "
                      "times the mean, and imbalance is {}",
                      experts_.num_experts, experts_.top_k, most, router_.imbalance));
  }

  void check_capacity() {
    const bool is_by_score = experts_.drop_by == kernels::DropBy::score;
    if (experts_.capacity_factor == 0 && is_by_score)
      add({"experts.drop_by", "experts.capacity_factor"},
          "drop_by counts only with a capacity_factor above 0; set it or leave both out");
    if (experts_.capacity_factor > 0 && is_by_score && !experts_.allow_future)
      add({"experts.drop_by", "experts.allow_future"},
          "drop_by score lets it depend on tokens that come later whether a token's choice is "
          "dropped; write allow_future: true if that is meant, or drop_by: position");
  }

  void check_balance_loss() {
    if (experts_.balance_loss == BalanceLoss::shares) return;
    const std::string_view loss = name_of(experts_.balance_loss);
    if (router_.kind != RouterKind::noisy_top_k)
      add({"experts.balance_loss", "experts.router.kind"},
          fmt::format("balance_loss {} is made of the noise of kind noisy_top_k, and kind {} has "
                      "none; leave balance_loss out or change the kind",
                      loss, kind_));
    if (experts_.balance_scope == BalanceScope::step)
      add({"experts.balance_loss", "experts.balance_scope"},
          fmt::format("balance_loss {} is not the sum of what micro-steps add to it, so it has no "
                      "scope step; write balance_scope: micro_step or sequence",
                      loss));
    if (has_load(experts_.balance_loss) && experts_.bias_rate > 0)
      add({"experts.balance_loss", "experts.bias_rate"},
          fmt::format("balance_loss {} asks how far a logit is from being chosen, which a bias "
                      "moves; leave bias_rate out, or write balance_loss: importance",
                      loss));
  }

  void check_bias_rule() {
    if (experts_.bias_rule == BiasRule::sign) return;
    if (experts_.bias_rate == 0 || experts_.bias_rate > 1)
      add({"experts.bias_rule", "experts.bias_rate"},
          fmt::format(
              "bias_rule quantile goes a share bias_rate of the way, above 0 and at most 1, "
              "and bias_rate is {}; write bias_rate: 0.1",
              experts_.bias_rate));
    if (router_.kind != RouterKind::top_k && router_.kind != RouterKind::noisy_top_k)
      add({"experts.bias_rule", "experts.router.kind"},
          fmt::format("bias_rule quantile counts by how much scores are among the largest, which "
                      "kinds top_k and noisy_top_k choose by alone, and kind {} does not; leave "
                      "bias_rule out",
                      kind_));
    if (router_.top_groups < router_.groups)
      add({"experts.bias_rule", "experts.router.groups"},
          "bias_rule quantile takes the best of all experts, and groups leave some out; leave "
          "bias_rule or groups out");
    if (experts_.top_k >= experts_.num_experts)
      add({"experts.bias_rule", "experts.top_k", "experts.num_experts"},
          fmt::format("bias_rule quantile needs an expert that is not chosen, and top_k = {} of "
                      "num_experts = {} leaves none; leave bias_rule out",
                      experts_.top_k, experts_.num_experts));
  }

  const ExpertsConfig& experts_;
  const RouterConfig& router_;
  std::string_view kind_;
  std::vector<ConfigMistake> found_;
};

}  // namespace

std::vector<ConfigMistake> router_mistakes(const ExpertsConfig& config) {
  if (config.num_experts == 0 || config.every == 0) return {};
  return Mistakes(config).find();
}

std::vector<ConfigMistake> router_mistakes_on_card(const ExpertsConfig& config) {
  if (config.num_experts == 0 || config.every == 0) return {};
  if (config.capacity_factor > 0)
    return {
        {{"experts.capacity_factor", "run.device"},
         "on a card no choices are dropped; write run.device: cpu or leave capacity_factor out"}};
  if (config.has_quantiles())
    return {{{"experts.bias_rule", "run.device"},
             "on a card a bias moves by sign alone; write bias_rule: sign or run.device: cpu"}};
  if (config.router.runs_on_card()) return {};
  return {{{"experts.router.kind", "experts.router.jitter", "experts.router.groups", "run.device"},
           fmt::format("on a card there are the kinds top_k, hash and balanced, without jitter and "
                       "with at most {} groups; write run.device: cpu or change the router",
                       kernels::most_groups_on_card)}};
}

}  // namespace switchyard
