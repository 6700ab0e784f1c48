#include "experts/router/router_parts.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "experts/router/given_load.hpp"
#include "kernels/routing/router_noise.hpp"
#include "kernels/routing/score.hpp"
#include "kernels/routing/select.hpp"
#include "kernels/routing/select_fixed.hpp"
#include "kernels/routing/select_sequences.hpp"
#include "kernels/routing/weigh.hpp"

namespace switchyard {

namespace {

class SoftmaxScore final : public Score {
 public:
  void forward(const RoutedTokens& /*tokens*/, const TensorView& logits, const TensorView& scores,
               const TensorView& lse) const override {
    kernels::score_softmax(logits, scores, lse);
  }
  TensorView shares(const TensorView& scores, const TensorView& /*room*/) const override {
    return scores;
  }
  void backward(const RoutedTokens& /*tokens*/, const Gradient& gradient,
                const TensorView& /*logits*/, const TensorView& scores, const TensorView& lse,
                const TensorView& dlogits) const override {
    kernels::score_softmax_backward(gradient.dchosen, gradient.indices, gradient.slopes,
                                    gradient.z_slope, scores, lse, dlogits);
  }
};

class SigmoidScore final : public Score {
 public:
  void forward(const RoutedTokens& /*tokens*/, const TensorView& logits, const TensorView& scores,
               const TensorView& lse) const override {
    kernels::score_sigmoid(logits, scores, lse);
  }
  TensorView shares(const TensorView& scores, const TensorView& room) const override {
    kernels::divide_by_row_sums(scores, room);
    return room;
  }
  void backward(const RoutedTokens& /*tokens*/, const Gradient& gradient, const TensorView& logits,
                const TensorView& scores, const TensorView& lse,
                const TensorView& dlogits) const override {
    kernels::score_sigmoid_backward(gradient.dchosen, gradient.indices, gradient.slopes,
                                    gradient.z_slope, logits, scores, lse, dlogits);
  }
};

class TopKSelect : public Select {
 public:
  explicit TopKSelect(const RouterConfig& config) : config_(config) {}
  void choose(const RoutedTokens& tokens, const TensorView& scores,
              const TensorView& indices) const override {
    kernels::select_top_k(scores, indices,
                          {.bias = tokens.bias,
                           .num_groups = config_.groups,
                           .top_groups = config_.top_groups,
                           .group_score = config_.group_score});
  }

 private:
  RouterConfig config_;
};

// In evaluation the second expert is never given up: nothing there is random.
class GshardSelect final : public TopKSelect {
 public:
  GshardSelect(const RouterConfig& config, RandomKey key) : TopKSelect(config), key_(key) {}
  bool gives_up(const Pass& pass) const override { return pass.training; }
  void give_up(const RoutedTokens& tokens, const TensorView& weights,
               const TensorView& indices) const override {
    kernels::give_up_second(weights, token_site(key_, tokens.pass, indices.rows()),
                            sequence_ids_of(tokens.pass, indices.rows()), indices);
  }

 private:
  RandomKey key_;
};

// What balances within sequences while training, and is plain top-k otherwise.
class SequenceSelect : public Select {
 public:
  bool sees_future() const final { return true; }
  void choose(const RoutedTokens& tokens, const TensorView& scores,
              const TensorView& indices) const final {
    if (tokens.pass.training)
      choose_in_sequences(scores, tokens.pass.sequence_length, indices);
    else
      kernels::select_top_k(scores, indices, {.num_chosen = num_chosen(indices.cols())});
  }

 private:
  // scores: f32 [S L, E] of whole sequences; may be changed.
  virtual void choose_in_sequences(const TensorView& scores, std::int64_t sequence_length,
                                   const TensorView& indices) const = 0;
  // By plain top-k, of k.
  virtual std::int64_t num_chosen(std::int64_t top_k) const { return top_k; }
};

class SinkhornSelect final : public SequenceSelect {
 public:
  bool looks_at_logits() const override { return true; }

 private:
  void choose_in_sequences(const TensorView& scores, std::int64_t sequence_length,
                           const TensorView& indices) const override {
    kernels::sinkhorn_plan(scores, sequence_length, scores);
    kernels::select_top_k(scores, indices);
  }
};

class BaseSelect final : public SequenceSelect {
 public:
  bool looks_at_logits() const override { return true; }

 private:
  void choose_in_sequences(const TensorView& scores, std::int64_t sequence_length,
                           const TensorView& indices) const override {
    kernels::select_balanced(scores, sequence_length, indices);
  }
};

class ExpertChoiceSelect final : public SequenceSelect {
 public:
  explicit ExpertChoiceSelect(double capacity) : capacity_(capacity) {}

 private:
  double capacity(std::int64_t top_k) const {
    return capacity_ > 0 ? capacity_ : static_cast<double>(top_k);
  }
  void choose_in_sequences(const TensorView& scores, std::int64_t sequence_length,
                           const TensorView& indices) const override {
    kernels::select_by_experts(scores, sequence_length, capacity(indices.cols()), indices);
  }
  std::int64_t num_chosen(std::int64_t top_k) const override {
    return std::clamp<std::int64_t>(std::llround(capacity(top_k)), 1, top_k);
  }

  double capacity_;
};

class HashSelect final : public Select {
 public:
  explicit HashSelect(RandomKey key) : key_(key) {}
  void choose(const RoutedTokens& tokens, const TensorView& scores,
              const TensorView& indices) const override {
    kernels::select_by_hash(tokens.pass.tokens.slice_rows(0, indices.rows()), key_, scores.cols(),
                            indices);
  }

 private:
  RandomKey key_;
};

kernels::TokenNumbers numbers_of(const Pass& pass, std::int64_t num_tokens) {
  return {.rows_of_sequence = pass.sequence_length,
          .sequence_length = pass.whole_length(),
          .positions = pass.positions.slice_rows(0, num_tokens),
          .sequence_ids = sequence_ids_of(pass, num_tokens)};
}

class BalancedSelect final : public Select {
 public:
  void choose(const RoutedTokens& tokens, const TensorView& scores,
              const TensorView& indices) const override {
    kernels::select_in_turn(numbers_of(tokens.pass, indices.rows()), scores.cols(), indices);
  }
};

class ImbalancedSelect final : public Select {
 public:
  explicit ImbalancedSelect(const ExpertsConfig& config)
      : shares_(given_load(config.num_experts, config.top_k, config.router.imbalance)) {}
  void choose(const RoutedTokens& tokens, const TensorView& /*scores*/,
              const TensorView& indices) const override {
    kernels::select_by_shares(numbers_of(tokens.pass, indices.rows()), shares_, indices);
  }

 private:
  std::vector<double> shares_;
};

class ChosenScores final : public Weigh {
 public:
  explicit ChosenScores(kernels::Weighing weighing) : weighing_(weighing) {}

  void forward(const TensorView& scores, const TensorView& indices,
               const TensorView& weights) const override {
    kernels::weigh(scores, indices, weighing_, weights);
  }
  void backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                const TensorView& dchosen) const override {
    kernels::weigh_backward(dweights, scores, indices, weighing_, dchosen);
  }

 private:
  kernels::Weighing weighing_;
};

std::unique_ptr<const Score> make_score(const RouterConfig& config) {
  if (config.score == RouterScore::sigmoid) return std::make_unique<SigmoidScore>();
  return std::make_unique<SoftmaxScore>();
}

std::unique_ptr<const Select> make_select(const ExpertsConfig& config, const RouterKeys& keys) {
  const RouterConfig& router = config.router;
  switch (router.kind) {
    case RouterKind::top_k:
    case RouterKind::noisy_top_k:
      break;
    case RouterKind::gshard:
      return std::make_unique<GshardSelect>(router, keys.choice);
    case RouterKind::sinkhorn:
      return std::make_unique<SinkhornSelect>();
    case RouterKind::base:
      return std::make_unique<BaseSelect>();
    case RouterKind::expert_choice:
      return std::make_unique<ExpertChoiceSelect>(router.capacity);
    case RouterKind::hash:
      return std::make_unique<HashSelect>(keys.choice);
    case RouterKind::balanced:
      return std::make_unique<BalancedSelect>();
    case RouterKind::imbalanced:
      return std::make_unique<ImbalancedSelect>(config);
  }
  return std::make_unique<TopKSelect>(router);
}

}  // namespace

RouterKeys router_keys(std::uint64_t seed, const std::string& layer) {
  return {.noise = random_key(seed, "router noise " + layer),
          .jitter = random_key(seed, "router jitter " + layer),
          .choice = random_key(seed, "router choice " + layer)};
}

RouterParts make_router_parts(const ExpertsConfig& config, const RouterKeys& keys) {
  return {.score = make_score(config.router),
          .select = make_select(config, keys),
          .weigh = std::make_unique<ChosenScores>(
              kernels::Weighing{.renormalize = config.weights_are_shares(),
                                .scale = static_cast<float>(config.router.scale)}),
          .keys = keys};
}

kernels::DropoutSite token_site(RandomKey key, const Pass& pass, std::int64_t num_tokens) {
  return {.key = key,
          .step = pass.step,
          .sequence_length = pass.sequence_length,
          .positions = pass.positions.slice_rows(0, num_tokens)};
}

TensorView sequence_ids_of(const Pass& pass, std::int64_t num_tokens) {
  return pass.sequence_ids.slice_rows(0, num_tokens / pass.sequence_length);
}

}  // namespace switchyard
