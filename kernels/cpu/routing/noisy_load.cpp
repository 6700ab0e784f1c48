#include "kernels/cpu/routing/noisy_load.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/token_counter.hpp"
#include "kernels/cpu/sums/exact_term.hpp"

namespace switchyard::kernels::cpu {

namespace {

double term_of(double value, const ExactTerms& rounding) {
  return rounding.quantum > 0 ? exact_term(value, rounding) : value;
}

double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

double sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}

double normal_distribution(double z) {
  return 0.5 * std::erfc(-z / std::numbers::sqrt2);
}

double normal_density(double z) {
  constexpr double factor = 0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2;
  return factor * std::exp(-0.5 * z * z);
}

// What P of one expert depends on.
struct Chance {
  std::int32_t threshold_at;  // the expert whose logit is the threshold
  double noise, deviation, raw;
  double z;
};

// Of the experts of one token after the other.
class Chances {
 public:
  explicit Chances(const NoisyChoice& choice)
      : top_k_(choice.top_k),
        num_experts_(choice.logits.cols()),
        logits_(rows_of<float>(choice.logits)),
        raw_(rows_of<float>(choice.raw)),
        counters_(choice.site, choice.sequence_ids, choice.logits.cols()),
        order_(static_cast<std::size_t>(num_experts_)) {}

  // With as many choices as experts each is certain to be chosen.
  bool are_certain() const { return top_k_ >= num_experts_; }

  // body(expert, its Chance)
  template <class Body>
  void for_each(std::int64_t t, Body body) {
    const float* logits = logits_[t];
    std::iota(order_.begin(), order_.end(), 0);
    std::partial_sort(order_.begin(), order_.begin() + top_k_ + 1, order_.end(),
                      [&](std::int32_t a, std::int32_t b) {
                        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
                      });
    const std::int32_t last_in = order_[static_cast<std::size_t>(top_k_ - 1)];
    const std::int32_t first_out = order_[static_cast<std::size_t>(top_k_)];
    for (std::int64_t i = 0; i < num_experts_; i += 4) {
      const auto numbers = normals(counters_.words(t, i / 4));
      for (std::int64_t e = i; e < std::min(i + 4, num_experts_); ++e) {
        const bool is_in =
            logits[e] > logits[last_in] || (logits[e] == logits[last_in] && e <= last_in);
        body(e,
             chance(t, e, is_in ? first_out : last_in, numbers[static_cast<std::size_t>(e - i)]));
      }
    }
  }

 private:
  Chance chance(std::int64_t t, std::int64_t e, std::int32_t threshold_at, float noise) const {
    constexpr double least = 1e-9;  // no division by 0
    const double raw = raw_[t][e], deviation = std::max(softplus(raw), least);
    const double ahead =
        static_cast<double>(logits_[t][e]) - static_cast<double>(logits_[t][threshold_at]);
    return {threshold_at, noise, deviation, raw, ahead / deviation - static_cast<double>(noise)};
  }

  std::int64_t top_k_, num_experts_;
  Rows<float> logits_, raw_;
  TokenCounters counters_;
  std::vector<std::int32_t> order_;
};

// body(sequence, token) for all tokens, a sequence by one thread.
template <class Body>
void for_tokens_of_sequences(std::int64_t num_tokens, std::int64_t num_sequences, Body body) {
  const std::int64_t length = num_tokens / num_sequences;
  parallel_blocks(num_sequences, 1,
                  [&](std::int64_t s, std::int64_t) { body(s, s * length, (s + 1) * length); });
}

}  // namespace

void sum_importance(const TensorView& weights, const TensorView& indices, double scale,
                    const ExactTerms& rounding, const TensorView& sums) {
  const Rows<float> weight = rows_of<float>(weights);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const Rows<double> sum = rows_of<double>(sums);
  for_tokens_of_sequences(
      weights.rows(), sums.rows(), [&](std::int64_t s, std::int64_t begin, std::int64_t end) {
        std::fill_n(sum[s], sums.cols(), 0.0);
        for (std::int64_t t = begin; t < end; ++t)
          for (std::int64_t j = 0; j < indices.cols(); ++j)
            if (index[t][j] >= 0)
              sum[s][index[t][j]] += term_of(static_cast<double>(weight[t][j]) / scale, rounding);
      });
}

void sum_noisy_load(const NoisyChoice& choice, const ExactTerms& rounding, const TensorView& sums) {
  const Rows<double> sum = rows_of<double>(sums);
  const std::int64_t num_tokens = choice.logits.rows();
  for_tokens_of_sequences(
      num_tokens, sums.rows(), [&](std::int64_t s, std::int64_t begin, std::int64_t end) {
        Chances chances(choice);
        std::fill_n(sum[s], sums.cols(),
                    chances.are_certain() ? static_cast<double>(end - begin) : 0.0);
        if (chances.are_certain()) return;
        for (std::int64_t t = begin; t < end; ++t)
          chances.for_each(t, [&](std::int64_t e, const Chance& chance) {
            sum[s][e] += term_of(normal_distribution(chance.z), rounding);
          });
      });
}

// What follows has as many numbers as there are sequences and experts: one thread.

void counts_as_load(const TensorView& counts, const TensorView& sums) {
  std::ranges::transform(counts.span<std::int32_t>(), sums.as<double>(),
                         [](std::int32_t count) { return static_cast<double>(count); });
}

void pool_rows(const TensorView& sums) {
  double* first = sums.row<double>(0);
  for (std::int64_t s = 1; s < sums.rows(); ++s)
    std::transform(first, first + sums.cols(), sums.row<double>(s), first, std::plus<>());
}

void spread_first_row(const TensorView& sums) {
  for (std::int64_t s = 1; s < sums.rows(); ++s)
    std::copy_n(sums.row<double>(0), sums.cols(), sums.row<double>(s));
}

namespace {

struct Moments {
  double sum = 0, sum_of_squares = 0;
};

Moments moments_of(const TensorView& sums, std::int64_t s) {
  Moments moments;
  for (std::int64_t e = 0; e < sums.cols(); ++e) {
    const double value = sums.row<double>(s)[e];
    moments.sum += value;
    moments.sum_of_squares += value * value;
  }
  return moments;
}

}  // namespace

void add_variation(const TensorView& sums, double factor, const ExactTerms& rounding,
                   const TensorView& losses) {
  const double num_experts = static_cast<double>(sums.cols());
  double total = 0;
  for (std::int64_t s = 0; s < sums.rows(); ++s) {
    const Moments m = moments_of(sums, s);
    if (m.sum != 0)
      total += term_of(num_experts * m.sum_of_squares / (m.sum * m.sum) - 1, rounding);
  }
  losses.as<double>()[0] += factor * total;
}

void variation_slopes(const TensorView& sums, double weight, const TensorView& slopes) {
  const double num_experts = static_cast<double>(sums.cols());
  for (std::int64_t s = 0; s < sums.rows(); ++s) {
    const Moments m = moments_of(sums, s);
    const double factor = m.sum == 0 ? 0 : 2 * weight * num_experts / (m.sum * m.sum);
    for (std::int64_t e = 0; e < sums.cols(); ++e)
      slopes.row<float>(s)[e] =
          m.sum == 0
              ? 0.0f
              : static_cast<float>(factor * (sums.row<double>(s)[e] - m.sum_of_squares / m.sum));
  }
}

void add_importance_gradient(const TensorView& slopes, const TensorView& indices, double scale,
                             const TensorView& dweights) {
  const Rows<float> slope = rows_of<float>(slopes), gradient = rows_of<float>(dweights);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const std::int64_t length = dweights.rows() / slopes.rows();
  parallel_rows(dweights.rows(), dweights.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      for (std::int64_t j = 0; j < dweights.cols(); ++j)
        if (index[t][j] >= 0)
          gradient[t][j] += slope[t / length][index[t][j]] / static_cast<float>(scale);
  });
}

void add_load_gradient(const NoisyChoice& choice, const TensorView& slopes,
                       const TensorView& dlogits) {
  const Rows<float> slope = rows_of<float>(slopes), gradient = rows_of<float>(dlogits);
  for_tokens_of_sequences(
      dlogits.rows(), slopes.rows(), [&](std::int64_t s, std::int64_t begin, std::int64_t end) {
        Chances chances(choice);
        for (std::int64_t t = begin; t < end && !chances.are_certain(); ++t)
          chances.for_each(t, [&](std::int64_t e, const Chance& chance) {
            const auto through = static_cast<float>(static_cast<double>(slope[s][e]) *
                                                    normal_density(chance.z) / chance.deviation);
            gradient[t][e] += through;
            gradient[t][chance.threshold_at] -= through;
          });
      });
}

// At a fixed logit z changes with the deviation by -(z + n) / deviation.
void add_load_noise_gradient(const NoisyChoice& choice, const TensorView& slopes,
                             const TensorView& draw) {
  const Rows<float> slope = rows_of<float>(slopes), gradient = rows_of<float>(draw);
  for_tokens_of_sequences(
      draw.rows(), slopes.rows(), [&](std::int64_t s, std::int64_t begin, std::int64_t end) {
        Chances chances(choice);
        for (std::int64_t t = begin; t < end && !chances.are_certain(); ++t)
          chances.for_each(t, [&](std::int64_t e, const Chance& chance) {
            gradient[t][e] -= static_cast<float>(
                static_cast<double>(slope[s][e]) * normal_density(chance.z) *
                (chance.z + chance.noise) / chance.deviation * sigmoid(chance.raw));
          });
      });
}

}  // namespace switchyard::kernels::cpu
