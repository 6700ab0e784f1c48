#include "experts/router_parts.hpp"

#include "kernels/score.hpp"
#include "kernels/select.hpp"
#include "kernels/weigh.hpp"

namespace switchyard {

namespace {

class SoftmaxScore final : public Score {
 public:
  void forward(const RoutedTokens& /*tokens*/, const TensorView& logits, const TensorView& scores,
               const TensorView& lse) const override {
    kernels::score_softmax(logits, scores, lse);
  }
  void backward(const RoutedTokens& /*tokens*/, const Gradient& gradient, const TensorView& scores,
                const TensorView& lse, const TensorView& dlogits) const override {
    kernels::score_softmax_backward(gradient.dchosen, gradient.indices, gradient.slopes,
                                    gradient.z_slope, scores, lse, dlogits);
  }
};

class TopKSelect final : public Select {
 public:
  void choose(const RoutedTokens& tokens, const TensorView& scores,
              const TensorView& indices) const override {
    kernels::select_top_k(scores, indices, {.bias = tokens.bias});
  }
};

class ChosenScores final : public Weigh {
 public:
  explicit ChosenScores(bool renormalize) : renormalize_(renormalize) {}

  void forward(const TensorView& scores, const TensorView& indices,
               const TensorView& weights) const override {
    kernels::weigh(scores, indices, renormalize_, weights);
  }
  void backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                const TensorView& dchosen) const override {
    kernels::weigh_backward(dweights, scores, indices, renormalize_, dchosen);
  }

 private:
  bool renormalize_;
};

}  // namespace

RouterParts make_router_parts(const ExpertsConfig& config) {
  return {.score = std::make_unique<SoftmaxScore>(),
          .select = std::make_unique<TopKSelect>(),
          .weigh = std::make_unique<ChosenScores>(config.normalize_top_k)};
}

}  // namespace switchyard
