// Sigmoid scores, their shares and scaled weights, and their gradients against difference
// quotients.
#include "kernels/routing/score.hpp"

#include <cmath>
#include <numeric>

#include "kernels/kernel_test.hpp"
#include "kernels/routing/select.hpp"
#include "kernels/routing/weigh.hpp"

namespace switchyard::test {
namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

// What a router makes of its logits at fixed choices: weights and shares.
struct Sizes {
  std::size_t tokens, experts, top_k, length;
};

struct Loss {
  Sizes sizes;
  std::vector<std::int32_t> indices;
  kernels::Weighing weighing;
  Doubles dweights, slopes;
  double z_slope;

  double operator()(const Doubles& logits) const {
    double loss = 0;
    for (std::size_t t = 0; t < sizes.tokens; ++t) {
      const double* logit = &logits[t * sizes.experts];
      Doubles scores(sizes.experts);
      std::transform(logit, logit + sizes.experts, scores.begin(), sigmoid);
      const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
      for (std::size_t e = 0; e < sizes.experts; ++e)
        loss += slopes[t / sizes.length * sizes.experts + e] * scores[e] / total;
      double chosen = 0, weighted = 0;
      for (std::size_t j = 0; j < sizes.top_k; ++j) {
        const std::int32_t e = indices[t * sizes.top_k + j];
        if (e < 0) continue;
        chosen += scores[static_cast<std::size_t>(e)];
        weighted += dweights[t * sizes.top_k + j] * scores[static_cast<std::size_t>(e)];
      }
      if (chosen > 0)
        loss +=
            static_cast<double>(weighing.scale) * weighted / (weighing.renormalize ? chosen : 1);
      const double lse = reference::log_sum_exp(logit, sizes.experts);
      loss += z_slope * lse * lse;
    }
    return loss;
  }
};

TEST(SigmoidScore, IsTheFunctionAndItsShares) {
  for (const std::int64_t experts : {1, 3, 17, 64, 130, 300}) {
    const Operand logits(DType::f32, 5, experts, 1, 2), scores(DType::f32, 5, experts, 2, 1);
    const Operand shares(DType::f32, 5, experts, 3, 1), lse = vector_of(5);
    Doubles values = logits.values();
    for (double& value : values) value *= 4;
    logits.set(values);
    kernels::score_sigmoid(logits, scores, lse);
    kernels::divide_by_row_sums(scores, shares);
    Doubles wanted, wanted_shares, wanted_lse;
    values = logits.values();
    for (std::size_t row = 0; row < values.size(); row += static_cast<std::size_t>(experts)) {
      const auto begin = static_cast<std::ptrdiff_t>(row);
      std::transform(values.begin() + begin, values.begin() + begin + experts,
                     std::back_inserter(wanted), sigmoid);
      const double total = std::accumulate(wanted.begin() + begin, wanted.end(), 0.0);
      for (std::size_t i = row; i < wanted.size(); ++i) wanted_shares.push_back(wanted[i] / total);
      wanted_lse.push_back(reference::log_sum_exp(&values[row], static_cast<std::size_t>(experts)));
    }
    expect_close(scores, wanted, 1e-6);
    expect_close(shares, wanted_shares, 1e-6);
    expect_close(lse, wanted_lse, 2e-6);
  }
}

TEST(SigmoidScore, BearsLargeLogits) {
  const Operand logits(DType::f32, 1, 5), scores(DType::f32, 1, 5), lse = vector_of(1);
  logits.set({-300, -60, 0, 60, 300});
  kernels::score_sigmoid(logits, scores, lse);
  expect_close(scores, {0, sigmoid(-60), 0.5, 1, 1}, 1e-6);
  EXPECT_NEAR(scores.values()[1] / sigmoid(-60), 1, 1e-5);
  EXPECT_DOUBLE_EQ(lse.values()[0], 300);
}

TEST(SigmoidScore, BackwardIsTheGradient) {
  for (const Sizes& sizes :
       {Sizes{6, 1, 1, 3}, Sizes{6, 5, 2, 2}, Sizes{4, 17, 4, 4}, Sizes{4, 130, 6, 2}})
    for (const kernels::Weighing& weighing :
         {kernels::Weighing{}, kernels::Weighing{true, 2.5f}, kernels::Weighing{false, 0.5f}}) {
      const auto tokens = static_cast<std::int64_t>(sizes.tokens);
      const auto experts = static_cast<std::int64_t>(sizes.experts);
      const auto top_k = static_cast<std::int64_t>(sizes.top_k);
      const Operand logits(DType::f32, tokens, experts, 1, 2), scores(DType::f32, tokens, experts);
      const Operand lse = vector_of(tokens), dlogits(DType::f32, tokens, experts, 3, 1);
      const Operand dweights(DType::f32, tokens, top_k, 5), dchosen(DType::f32, tokens, top_k);
      const Operand weights(DType::f32, tokens, top_k);
      const Operand slopes(DType::f32, tokens / static_cast<std::int64_t>(sizes.length), experts,
                           6);
      kernels::score_sigmoid(logits, scores, lse);
      std::vector<std::int32_t> chosen(sizes.tokens * sizes.top_k);
      Operand indices = Operand::of_ints(chosen, top_k);
      kernels::select_top_k(scores, indices);
      chosen = indices.ints();
      for (std::size_t i = 0; i < chosen.size(); i += 3) chosen[i] = -1;
      indices = Operand::of_ints(chosen, top_k);
      const Loss loss{sizes, chosen, weighing, dweights.values(), slopes.values(), 0.125};
      kernels::weigh_backward(dweights, scores, indices, weighing, dchosen);
      kernels::score_sigmoid_backward(dchosen, indices, slopes, 0.125f, logits, scores, lse,
                                      dlogits);
      expect_close(dlogits, reference::numerical_gradient(loss, logits.values()), 4e-6);
    }
}

// Scores that are all too small for a number give no weight and no gradient, rather than NaN.
TEST(SigmoidScore, WithoutAnyScoreNothingIsNan) {
  const Operand scores(DType::f32, 1, 3), weights(DType::f32, 1, 2), dweights(DType::f32, 1, 2);
  scores.set({0, 0, 0});
  const Operand indices = Operand::of_ints({0, 1}, 2);
  kernels::weigh(scores, indices, {true, 2}, weights);
  EXPECT_EQ(weights.values(), (Doubles{0, 0}));
  kernels::weigh_backward(dweights, scores, indices, {true, 2}, dweights);
  EXPECT_EQ(dweights.values(), (Doubles{0, 0}));
}

TEST(Weigh, ScalesWhatItWeighs) {
  const Operand scores(DType::f32, 2, 3), weights(DType::f32, 2, 2);
  scores.set({0.5, 0.25, 0.25, 0.125, 0.5, 0.375});
  const Operand indices = Operand::of_ints({0, 1, 1, -1}, 2);
  kernels::weigh(scores, indices, {false, 4}, weights);
  EXPECT_EQ(weights.values(), (Doubles{2, 1, 2, 0}));
  kernels::weigh(scores, indices, {true, 3}, weights);
  expect_close(weights, {2, 1, 3, 0}, 1e-6);
}

}  // namespace
}  // namespace switchyard::test
