#include "kernels/gate.hpp"

#include <cmath>
#include <limits>

#include "kernel_test.hpp"

namespace switchyard::test {
namespace {

struct Gate {
  Gate(std::int64_t tokens, std::int64_t num_experts, std::int64_t k)
      : logits(DType::f32, tokens, num_experts, 1, 2),
        probs(DType::f32, tokens, num_experts, 2, 2),
        lse(vector_of(tokens)),
        indices(Operand::of_ints(
            std::vector<std::int32_t>(static_cast<std::size_t>(tokens * k), -1), k)),
        weights(DType::f32, tokens, k, 3, 2) {}
  void forward(bool renormalize) {
    kernels::gate_forward(logits, renormalize, probs, lse, indices, weights);
  }
  Operand logits, probs, lse, indices, weights;
};

const std::vector<std::pair<std::int64_t, std::int64_t>> experts_and_choices = {
    {1, 1}, {3, 3}, {8, 2}, {17, 4}, {64, 8}, {130, 6}, {257, 1}};

TEST(Gate, ForwardIsSoftmaxAndItsLargest) {
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

TEST(Gate, TiesGoToTheLowerExpert) {
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

TEST(Gate, NanLogitsGiveLegalIndicesAndNanWeights) {
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

// loss = <dweights, weights> + <slopes of the token's sequence, probs> + z_slope * sum of lse^2, at
// fixed choices.
double gate_loss(const Doubles& logits, const Gate& gate, bool renormalize, const Doubles& dweights,
                 const Doubles& slopes, std::size_t length, double z_slope) {
  const auto experts = static_cast<std::size_t>(gate.logits.view().cols());
  const auto k = static_cast<std::size_t>(gate.indices.view().cols());
  const Doubles probs = reference::softmax(logits, experts);
  double loss = reference::dot(
      dweights, reference::gate_weights(probs, experts, gate.indices.ints(), k, renormalize));
  for (std::size_t i = 0; i < probs.size(); ++i)
    loss += slopes[i / experts / length * experts + i % experts] * probs[i];
  for (std::size_t row = 0; row < logits.size(); row += experts) {
    const double lse = reference::log_sum_exp(&logits[row], experts);
    loss += z_slope * lse * lse;
  }
  return loss;
}

TEST(Gate, BackwardIsTheGradient) {
  for (const auto& [experts, k] : experts_and_choices)
    for (bool renormalize : {false, true}) {
      Gate gate(6, experts, k);
      gate.forward(renormalize);
      const Operand dweights(DType::f32, 6, k, 5, 1), slopes(DType::f32, 2, experts, 6, 1);
      const Operand dlogits(DType::f32, 6, experts, 7, 3);
      kernels::gate_backward(dweights, gate.probs, gate.lse, gate.indices, renormalize, slopes,
                             0.125f, dlogits);
      const Doubles wanted = reference::numerical_gradient(
          [&, renorm = renormalize](const Doubles& at) {
            return gate_loss(at, gate, renorm, dweights.values(), slopes.values(), 3, 0.125);
          },
          gate.logits.values());
      expect_close(dlogits, wanted, 4e-6);
    }
}

TEST(Gate, StatisticsCountChoicesAndAddProbabilities) {
  Gate gate(12, 9, 2);
  gate.forward(false);
  const Operand counts = Operand::of_ints(std::vector<std::int32_t>(27, -5), 9);
  const Operand sums(DType::f32, 3, 9, 4, 1);
  kernels::gate_statistics(gate.probs, gate.indices, 4, counts, sums);
  std::vector<std::int32_t> wanted_counts(27, 0);
  Doubles wanted_sums(27, 0.0);
  for (std::size_t t = 0; t < 12; ++t) {
    for (std::size_t j = 0; j < 2; ++j)
      ++wanted_counts[t / 4 * 9 + static_cast<std::size_t>(gate.indices.ints()[t * 2 + j])];
    for (std::size_t e = 0; e < 9; ++e)
      wanted_sums[t / 4 * 9 + e] += gate.probs.values()[t * 9 + e];
  }
  EXPECT_EQ(counts.ints(), wanted_counts);
  expect_close(sums, wanted_sums, 1e-6);
}

TEST(Gate, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    Gate gate(900, 64, 4);
    gate.forward(true);
    const Operand dweights(DType::f32, 900, 4, 5), slopes(DType::f32, 3, 64, 6);
    const Operand dlogits(DType::f32, 900, 64), sums(DType::f32, 3, 64);
    const Operand counts = Operand::of_ints(std::vector<std::int32_t>(192), 64);
    kernels::gate_backward(dweights, gate.probs, gate.lse, gate.indices, true, slopes, 0.1f,
                           dlogits);
    kernels::gate_statistics(gate.probs, gate.indices, 300, counts, sums);
    return std::vector<Doubles>{gate.probs.values(), gate.weights.values(), dlogits.values(),
                                sums.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
