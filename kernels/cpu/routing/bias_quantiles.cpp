#include "kernels/cpu/routing/bias_quantiles.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

// alpha of each token.
std::vector<float> thresholds_of(const TensorView& scores, const TensorView& bias,
                                 std::int64_t top_k) {
  const Rows<float> score = rows_of<float>(scores);
  const float* biases = bias.as<float>();
  const std::int64_t num_experts = scores.cols();
  std::vector<float> thresholds(static_cast<std::size_t>(scores.rows()));
  parallel_rows(scores.rows(), 4 * num_experts, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> biased(static_cast<std::size_t>(num_experts));
    for (std::int64_t t = begin; t < end; ++t) {
      std::transform(score[t], score[t] + num_experts, biases, biased.begin(), std::plus<>());
      std::nth_element(biased.begin(), biased.begin() + top_k, biased.end(), std::greater<>());
      thresholds[static_cast<std::size_t>(t)] = biased[static_cast<std::size_t>(top_k)];
    }
  });
  return thresholds;
}

// What `wanted` of the margins exceed, those of a bin being spread evenly over it.
double quantile_from_above(const std::int64_t* counts, double wanted) {
  double above = 0;
  for (int bin = num_margin_bins - 1; bin >= 0; --bin) {
    const auto count = static_cast<double>(counts[bin]);
    if (above + count >= wanted && count > 0) {
      const double begin = margin_bin_begin(bin), end = margin_bin_begin(bin + 1);
      return end - (wanted - above) / count * (end - begin);
    }
    above += count;
  }
  return margin_bin_begin(0);
}

}  // namespace

void count_margins(const TensorView& scores, const TensorView& bias, std::int64_t top_k,
                   const TensorView& histogram) {
  const std::vector<float> thresholds = thresholds_of(scores, bias, top_k);
  const Rows<float> score = rows_of<float>(scores);
  auto* counts = histogram.as<std::int64_t>();
  // A thread has some experts of all tokens, so that nobody else adds to their counts.
  constexpr std::int64_t experts_at_once = 16;
  parallel_blocks(scores.cols(), experts_at_once, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < scores.rows(); ++t)
      for (std::int64_t e = begin; e < end; ++e)
        ++counts[e * num_margin_bins +
                 margin_bin(score[t][e] - thresholds[static_cast<std::size_t>(t)])];
  });
}

void move_bias_to_quantiles(const TensorView& histogram, std::int64_t top_k,
                            const TensorView& decision, double rate, const TensorView& bias) {
  if (decision.as<float>()[1] == 0) return;
  const std::span<float> value = bias.span<float>();
  std::vector<double> moved(value.begin(), value.end());
  for (std::size_t e = 0; e < moved.size(); ++e) {
    const auto* counts =
        histogram.as<std::int64_t>() + static_cast<std::int64_t>(e) * num_margin_bins;
    const auto num_tokens = std::accumulate(counts, counts + num_margin_bins, std::int64_t{0});
    if (num_tokens == 0) continue;
    const double share =
        static_cast<double>(num_tokens * top_k) / static_cast<double>(moved.size());
    moved[e] += rate * (-quantile_from_above(counts, share) - moved[e]);
  }
  const double mean =
      std::accumulate(moved.begin(), moved.end(), 0.0) / static_cast<double>(moved.size());
  std::ranges::transform(moved, value.begin(),
                         [&](double each) { return static_cast<float>(each - mean); });
}

}  // namespace switchyard::kernels::cpu
