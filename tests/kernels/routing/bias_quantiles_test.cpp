// Biases by quantiles, against the margins themselves in double.
#include "kernels/routing/bias_quantiles.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/host_copy.hpp"
#include "kernels/kernel_test.hpp"
#include "support/on_device.hpp"

namespace switchyard::test {
namespace {

using kernels::num_margin_bins;

TEST(BiasQuantiles, BinsAreInOrderAndHaveTheirMargins) {
  for (int bin = 0; bin < num_margin_bins; ++bin) {
    const double begin = kernels::margin_bin_begin(bin), end = kernels::margin_bin_begin(bin + 1);
    EXPECT_LT(begin, end);
    EXPECT_EQ(kernels::margin_bin(static_cast<float>((begin + end) / 2)), bin);
    if (begin > 0) {
      EXPECT_LE(end - begin, begin / 16);
    }
  }
  EXPECT_EQ(kernels::margin_bin_begin(0), -4);
  EXPECT_EQ(kernels::margin_bin_begin(num_margin_bins), 4);
  EXPECT_EQ(kernels::margin_bin(-1e30f), 0);
  EXPECT_EQ(kernels::margin_bin(1e30f), num_margin_bins - 1);
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), 0.0f, -0.0f, 1e-40f, -1e-40f}) {
    EXPECT_GE(kernels::margin_bin(odd), 0);
    EXPECT_LT(kernels::margin_bin(odd), num_margin_bins);
  }
}

struct Problem {
  std::int64_t num_tokens, num_experts, top_k;
  float rate;
};

// Where the bias would go without bins.
Doubles moved(const Problem& p, const Doubles& scores, const Doubles& bias) {
  const auto experts = static_cast<std::size_t>(p.num_experts);
  std::vector<Doubles> margins(experts);
  for (std::size_t t = 0; t < static_cast<std::size_t>(p.num_tokens); ++t) {
    Doubles biased(experts);
    for (std::size_t e = 0; e < experts; ++e) biased[e] = scores[t * experts + e] + bias[e];
    std::ranges::sort(biased, std::greater<>());
    for (std::size_t e = 0; e < experts; ++e)
      margins[e].push_back(scores[t * experts + e] - biased[static_cast<std::size_t>(p.top_k)]);
  }
  Doubles result(bias);
  double mean = 0;
  for (std::size_t e = 0; e < experts; ++e) {
    std::ranges::sort(margins[e], std::greater<>());
    const auto share = static_cast<std::size_t>(p.num_tokens * p.top_k / p.num_experts);
    const double quantile = (margins[e][share - 1] + margins[e][share]) / 2;
    result[e] += static_cast<double>(p.rate) * (-quantile - result[e]);
    mean += result[e] / static_cast<double>(experts);
  }
  for (double& each : result) each -= mean;
  return result;
}

TEST(BiasQuantiles, AreTheMarginsThatTheShareOfAnExpertExceeds) {
  for (const Problem& p : {Problem{6000, 6, 2, 1}, Problem{4000, 40, 4, 0.25f}}) {
    const Operand scores(DType::f32, p.num_tokens, p.num_experts, 2, 1);
    Doubles values = scores.values();
    for (double& value : values) value = 1 / (1 + std::exp(-value));
    scores.set(values);
    values = scores.values();
    std::vector<float> start;
    for (std::int64_t e = 0; e < p.num_experts; ++e)
      start.push_back(0.05f * static_cast<float>(e % 3) - 0.05f);
    const Doubles before(start.begin(), start.end());
    const Tensor bias = tensor_of(tested(), start, {p.num_experts});
    std::vector<std::int64_t> zeros(static_cast<std::size_t>(p.num_experts * num_margin_bins));
    const Tensor histogram = tensor_of(tested(), zeros, {p.num_experts * num_margin_bins});
    // In two parts, as ranks and micro-steps add up.
    const std::int64_t cut = p.num_tokens / 3;
    for (const TensorView& part :
         {scores.view().slice_rows(0, cut), scores.view().slice_rows(cut, p.num_tokens)})
      kernels::count_margins(part, bias, p.top_k, histogram);
    std::vector<float> decision = {0.5f, 0}, after(start.size());
    kernels::move_bias_to_quantiles(histogram, p.top_k, tensor_of(tested(), decision, {2}),
                                    static_cast<double>(p.rate), bias);
    kernels::copy_to_host<float>(bias, after);
    EXPECT_EQ(after, start) << "a refused step";
    decision[1] = 1;
    kernels::move_bias_to_quantiles(histogram, p.top_k, tensor_of(tested(), decision, {2}),
                                    static_cast<double>(p.rate), bias);
    kernels::copy_to_host<float>(bias, after);
    const Doubles expected = moved(p, values, before);
    // Bins are a sixteenth of their margins wide, inside of which tokens lie evenly.
    for (std::size_t e = 0; e < expected.size(); ++e)
      EXPECT_NEAR(static_cast<double>(after[e]), expected[e], 0.01) << "expert " << e;
  }
}

// Loads that differ much are near each other after a few steps.
TEST(BiasQuantiles, BringLoadsTogether) {
  constexpr std::int64_t num_tokens = 4096, num_experts = 8, top_k = 2;
  const Operand scores(DType::f32, num_tokens, num_experts, 7, 1);
  Doubles values = scores.values();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 1 / (1 + std::exp(-values[i] - 0.3 * static_cast<double>(i % num_experts)));
  scores.set(values);
  std::vector<float> bias(num_experts), decision = {0, 1};
  const auto worst = [&] {
    std::vector<double> loads(num_experts);
    for (std::int64_t t = 0; t < num_tokens; ++t) {
      std::vector<std::pair<double, std::size_t>> order;
      for (std::size_t e = 0; e < num_experts; ++e)
        order.emplace_back(
            -values[static_cast<std::size_t>(t) * num_experts + e] - static_cast<double>(bias[e]),
            e);
      std::ranges::sort(order);
      for (std::size_t j = 0; j < top_k; ++j) loads[order[j].second] += 1;
    }
    return std::ranges::max(loads) * num_experts / (num_tokens * top_k);
  };
  const double before = worst();
  const Tensor on_device = tensor_of(tested(), bias, {num_experts});
  for (int step = 0; step < 8; ++step) {
    const Tensor histogram =
        tensor_of(tested(), std::vector<std::int64_t>(num_experts * num_margin_bins),
                  {num_experts * num_margin_bins});
    kernels::count_margins(scores, on_device, top_k, histogram);
    kernels::move_bias_to_quantiles(histogram, top_k, tensor_of(tested(), decision, {2}), 0.7,
                                    on_device);
  }
  kernels::copy_to_host<float>(on_device, bias);
  EXPECT_GT(before, 1.2);
  EXPECT_LT(worst(), 1.1);
}

}  // namespace
}  // namespace switchyard::test
