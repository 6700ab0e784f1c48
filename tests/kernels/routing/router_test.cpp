// The three parts of a router, score, select and weigh, alone and as the chain that they are.
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/kernel_test.hpp"
#include "kernels/routing/balance.hpp"
#include "kernels/routing/score.hpp"
#include "kernels/routing/select.hpp"
#include "kernels/routing/weigh.hpp"

namespace switchyard::test {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct Gate {
  Gate(std::int64_t tokens, std::int64_t num_experts, std::int64_t k)
      : logits(DType::f32, tokens, num_experts, 1, 2),
        probs(DType::f32, tokens, num_experts, 2, 2),
        lse(vector_of(tokens)),
        indices(Operand::of_ints(
            std::vector<std::int32_t>(static_cast<std::size_t>(tokens * k), -1), k)),
        weights(DType::f32, tokens, k, 3, 2) {}
  void forward(bool renormalize) {
    kernels::score_softmax(logits, probs, lse);
    kernels::select_top_k(probs, indices);
    kernels::weigh(probs, indices, {renormalize}, weights);
  }
  // About a third of the choices dropped; the others weigh what they weigh among themselves.
  void drop(bool renormalize) {
    std::vector<std::int32_t> kept = indices.ints();
    for (std::size_t i = 0; i < kept.size(); ++i)
      if (i * 7 % 3 == 0) kept[i] = -1;
    indices = Operand::of_ints(kept, indices.view().cols());
    weights.set(Doubles(kept.size(), nan));
    kernels::weigh(probs, indices, {renormalize}, weights);
  }
  Operand logits, probs, lse, indices, weights;
};

const std::vector<std::pair<std::int64_t, std::int64_t>> experts_and_choices = {
    {1, 1}, {3, 3}, {8, 2}, {17, 4}, {64, 8}, {130, 6}, {257, 1}, {300, 8}};

TEST(Router, ForwardIsSoftmaxAndItsLargest) {
  for (const auto& [experts, k] : experts_and_choices)
    for (std::int64_t tokens : {0, 1, 3, 40})
      for (bool renormalize : {false, true}) {
        Gate gate(tokens, experts, k);
        gate.forward(renormalize);
        const auto num_experts = static_cast<std::size_t>(experts);
        expect_close(gate.probs, reference::softmax(gate.logits.values(), num_experts), 1e-6);
        const Doubles logits = gate.logits.values(), probs = gate.probs.values();
        std::vector<std::int32_t> wanted;
        Doubles wanted_lse;
        for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
          wanted_lse.push_back(reference::log_sum_exp(&logits[t * num_experts], num_experts));
          const auto chosen =
              reference::largest(&probs[t * num_experts], num_experts, static_cast<std::size_t>(k));
          wanted.insert(wanted.end(), chosen.begin(), chosen.end());
        }
        expect_close(gate.lse, wanted_lse, 1e-6);
        EXPECT_EQ(gate.indices.ints(), wanted);
        expect_close(gate.weights,
                     reference::gate_weights(probs, num_experts, wanted,
                                             static_cast<std::size_t>(k), renormalize),
                     1e-6);
      }
}

TEST(Router, TiesGoToTheLowerExpert) {
  for (std::int64_t experts : {5, 40}) {
    Gate gate(2, experts, 4);
    Doubles logits(static_cast<std::size_t>(2 * experts), 0.5);
    logits[3] = 2;  // row 0: expert 3, then all others alike
    logits[static_cast<std::size_t>(experts) + 4] = 0.75;
    logits[static_cast<std::size_t>(experts) + 1] = 0.75;  // row 1: 1 and 4 alike, then the others
    gate.logits.set(logits);
    gate.forward(true);
    EXPECT_EQ(gate.indices.ints(), (std::vector<std::int32_t>{3, 0, 1, 2, 1, 4, 0, 2}));
  }
}

// Scores of any sign, with ties, infinities and NaN: always k different experts.
TEST(Select, OrdersAnyScores) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const auto chosen = [](const Doubles& scores, std::int64_t k) {
    const Operand row(DType::f32, 1, static_cast<std::int64_t>(scores.size()));
    row.set(scores);
    const Operand indices =
        Operand::of_ints(std::vector<std::int32_t>(static_cast<std::size_t>(k), -7), k);
    kernels::select_top_k(row, indices);
    EXPECT_EQ(row.values().size(), scores.size());
    return indices.ints();
  };
  EXPECT_EQ(chosen({-3, -1, -2, -1}, 4), (std::vector<std::int32_t>{1, 3, 2, 0}));
  EXPECT_EQ(chosen({-inf, 2, -inf, 1}, 3), (std::vector<std::int32_t>{1, 3, 0}));
  EXPECT_EQ(chosen({nan, nan, nan}, 2), (std::vector<std::int32_t>{0, 1}));
  constexpr double lowest = std::numeric_limits<float>::lowest();
  EXPECT_EQ(chosen({-inf, lowest, -inf, lowest}, 4), (std::vector<std::int32_t>{1, 3, 0, 2}));
  EXPECT_EQ(chosen({-0.0, -1, 0.0, inf}, 4), (std::vector<std::int32_t>{3, 0, 2, 1}));
  Doubles many(300, -inf);  // among many that have no order
  many[299] = -1e30;
  many[7] = 3;
  EXPECT_EQ(chosen(many, 5), (std::vector<std::int32_t>{7, 299, 0, 1, 2}));
  for (std::size_t bad = 0; bad < 40; ++bad) {
    Doubles scores(40);
    for (std::size_t e = 0; e < scores.size(); ++e) scores[e] = static_cast<double>(e * 17 % 13);
    scores[bad] = nan;
    std::vector<std::int32_t> experts = chosen(scores, 40);
    std::sort(experts.begin(), experts.end());
    for (std::int32_t e = 0; e < 40; ++e) EXPECT_EQ(experts[static_cast<std::size_t>(e)], e);
  }
}

TEST(Select, IsTheSortedOrder) {
  for (const std::int64_t experts : {1, 7, 40, 130, 300})
    for (const std::int64_t k : {1, 5, 40, 70}) {
      if (k > experts) continue;
      const Operand scores(DType::f32, 9, experts, 3, 2);
      Doubles values = scores.values();
      for (double& value : values) value = std::round(value * 8) / 8;  // ties
      scores.set(values);
      const Operand indices =
          Operand::of_ints(std::vector<std::int32_t>(static_cast<std::size_t>(9 * k), -7), k);
      kernels::select_top_k(scores, indices);
      std::vector<std::int32_t> wanted;
      for (std::int64_t t = 0; t < 9; ++t) {
        std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
          return values[static_cast<std::size_t>(t * experts + a)] >
                 values[static_cast<std::size_t>(t * experts + b)];
        });
        wanted.insert(wanted.end(), order.begin(), order.begin() + k);
      }
      EXPECT_EQ(indices.ints(), wanted);
    }
}

TEST(Router, NanLogitsGiveLegalIndicesAndNanWeights) {
  for (std::int64_t experts : {4, 33})
    for (double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      Gate gate(2, experts, 2);
      Doubles logits = gate.logits.values();
      logits[2] = bad;
      gate.logits.set(logits);
      gate.forward(true);
      EXPECT_EQ(gate.indices.ints()[0], 0);
      EXPECT_EQ(gate.indices.ints()[1], 1);
      EXPECT_TRUE(std::isnan(gate.weights.values()[0]));
      EXPECT_TRUE(std::isfinite(gate.weights.values()[2]));
    }
}

// Of the choices at hand, -1 being none.
Doubles weights_of(const Doubles& probs, const Gate& gate, bool renormalize) {
  const auto experts = static_cast<std::size_t>(gate.logits.view().cols());
  const auto k = static_cast<std::size_t>(gate.indices.view().cols());
  const std::vector<std::int32_t> indices = gate.indices.ints();
  Doubles weights(indices.size());
  for (std::size_t row = 0; row < indices.size(); row += k) {
    double sum = 0;
    for (std::size_t i = row; i < row + k; ++i)
      if (indices[i] >= 0)
        sum += weights[i] = probs[row / k * experts + static_cast<std::size_t>(indices[i])];
    for (std::size_t i = row; renormalize && sum > 0 && i < row + k; ++i) weights[i] /= sum;
  }
  return weights;
}

// loss = <dweights, weights> + <slopes of the token's sequence, probs> + z_slope * sum of lse^2, at
// fixed choices.
double gate_loss(const Doubles& logits, const Gate& gate, bool renormalize, const Doubles& dweights,
                 const Doubles& slopes, std::size_t length, double z_slope) {
  const auto experts = static_cast<std::size_t>(gate.logits.view().cols());
  const Doubles probs = reference::softmax(logits, experts);
  double loss = reference::dot(dweights, weights_of(probs, gate, renormalize));
  for (std::size_t i = 0; i < probs.size(); ++i)
    loss += slopes[i / experts / length * experts + i % experts] * probs[i];
  for (std::size_t row = 0; row < logits.size(); row += experts) {
    const double lse = reference::log_sum_exp(&logits[row], experts);
    loss += z_slope * lse * lse;
  }
  return loss;
}

// dchosen is NaN before it is written; then in place of dweights.
void expect_gradient(const Gate& gate, bool renormalize) {
  const std::int64_t experts = gate.logits.view().cols(), k = gate.indices.view().cols();
  const Operand dweights(DType::f32, 6, k, 5, 1), slopes(DType::f32, 2, experts, 6, 1);
  const Operand dlogits(DType::f32, 6, experts, 7, 3), dchosen(DType::f32, 6, k, 8, 2);
  const Doubles wanted = reference::numerical_gradient(
      [&](const Doubles& at) {
        return gate_loss(at, gate, renormalize, dweights.values(), slopes.values(), 3, 0.125);
      },
      gate.logits.values());
  dchosen.set(Doubles(static_cast<std::size_t>(6 * k), nan));
  kernels::weigh_backward(dweights, gate.probs, gate.indices, {renormalize}, dchosen);
  kernels::score_softmax_backward(dchosen, gate.indices, slopes, 0.125f, gate.probs, gate.lse,
                                  dlogits);
  expect_close(dlogits, wanted, 4e-6);
  kernels::weigh_backward(dweights, gate.probs, gate.indices, {renormalize}, dweights);
  EXPECT_EQ(dweights.values(), dchosen.values());
}

TEST(Router, BackwardIsTheGradient) {
  for (const auto& [experts, k] : experts_and_choices)
    for (bool renormalize : {false, true}) {
      Gate gate(6, experts, k);
      gate.forward(renormalize);
      expect_gradient(gate, renormalize);
    }
}

TEST(Router, ADroppedChoiceWeighsNothingAndHasNoGradient) {
  for (const auto& [experts, k] : experts_and_choices)
    for (bool renormalize : {false, true}) {
      Gate gate(6, experts, k);
      gate.forward(renormalize);
      gate.drop(renormalize);
      expect_close(gate.weights, weights_of(gate.probs.values(), gate, renormalize), 1e-6);
      expect_gradient(gate, renormalize);
    }
}

TEST(Router, StatisticsCountChoicesAndAddScores) {
  Gate gate(12, 9, 2);
  gate.forward(false);
  gate.drop(false);
  const Operand counts = Operand::of_ints(std::vector<std::int32_t>(27, -5), 9);
  const Operand sums(DType::f32, 3, 9, 4, 1);
  kernels::balance_statistics(gate.probs, gate.indices, 4, counts, sums);
  std::vector<std::int32_t> wanted_counts(27, 0);
  Doubles wanted_sums(27, 0.0);
  for (std::size_t t = 0; t < 12; ++t) {
    for (std::size_t j = 0; j < 2; ++j)
      if (const std::int32_t expert = gate.indices.ints()[t * 2 + j]; expert >= 0)
        ++wanted_counts[t / 4 * 9 + static_cast<std::size_t>(expert)];
    for (std::size_t e = 0; e < 9; ++e)
      wanted_sums[t / 4 * 9 + e] += gate.probs.values()[t * 9 + e];
  }
  EXPECT_EQ(counts.ints(), wanted_counts);
  expect_close(sums, wanted_sums, 1e-6);
}

TEST(Router, StatisticsOfLongSequences) {
  for (const std::int64_t experts : {3, 64, 300, 9000})
    for (const std::int64_t length : {130, 1027}) {
      if (experts > 1000 && length > 1000) continue;
      const std::int64_t tokens = 2 * length, k = 3;
      const Operand scores(DType::f32, tokens, experts, 1, 1);
      std::vector<std::int32_t> choices(static_cast<std::size_t>(tokens * k));
      for (std::size_t i = 0; i < choices.size(); ++i)
        choices[i] =
            static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(experts + 1)) - 1;
      const auto cells = static_cast<std::size_t>(2 * experts);
      const Operand counts = Operand::of_ints(std::vector<std::int32_t>(cells, -5), experts);
      const Operand sums(DType::f32, 2, experts, 4, 1);
      kernels::balance_statistics(scores, Operand::of_ints(choices, k), length, counts, sums);
      std::vector<std::int32_t> wanted_counts(cells, 0);
      Doubles wanted_sums(cells, 0.0);
      const Doubles values = scores.values();
      for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
        const std::size_t row = t / static_cast<std::size_t>(length) * cells / 2;
        for (std::size_t e = 0; e < cells / 2; ++e)
          wanted_sums[row + e] += values[t * cells / 2 + e];
        for (std::size_t j = 0; j < 3; ++j)
          if (choices[t * 3 + j] >= 0)
            ++wanted_counts[row + static_cast<std::size_t>(choices[t * 3 + j])];
      }
      EXPECT_TRUE(counts.ints() == wanted_counts);
      // Rounding of partial sums of up to about 2 sqrt(L), which reach that height at most.
      expect_close(sums, wanted_sums, 0x1p-24 * static_cast<double>(length));
    }
}

TEST(Router, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    Gate gate(900, 64, 4);
    gate.forward(true);
    const Operand dweights(DType::f32, 900, 4, 5), slopes(DType::f32, 3, 64, 6);
    const Operand dlogits(DType::f32, 900, 64), sums(DType::f32, 3, 64);
    const Operand dchosen(DType::f32, 900, 4);
    const Operand counts = Operand::of_ints(std::vector<std::int32_t>(192), 64);
    kernels::weigh_backward(dweights, gate.probs, gate.indices, {true}, dchosen);
    kernels::score_softmax_backward(dchosen, gate.indices, slopes, 0.1f, gate.probs, gate.lse,
                                    dlogits);
    kernels::balance_statistics(gate.probs, gate.indices, 300, counts, sums);
    return std::vector<Doubles>{gate.probs.values(), gate.weights.values(), dlogits.values(),
                                sums.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
