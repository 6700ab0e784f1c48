#include "kernels/cpu/routing/balance.hpp"

#include <algorithm>
#include <span>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/elementwise.hpp"
#include "kernels/cpu/sums/exact_term.hpp"

namespace switchyard::kernels::cpu {

void balance_statistics(const TensorView& scores, const TensorView& indices,
                        std::int64_t sequence_length, const TensorView& counts,
                        const TensorView& score_sums) {
  const Rows<float> score = rows_of<float>(scores), sums = rows_of<float>(score_sums);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const Rows<std::int32_t> count = rows_of<std::int32_t>(counts);
  const std::int64_t num_experts = scores.cols(), top_k = indices.cols();
  parallel_blocks(counts.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) {
      std::fill_n(count[s], num_experts, 0);
      std::fill_n(sums[s], num_experts, 0.0f);
      for (std::int64_t t = s * sequence_length; t < (s + 1) * sequence_length; ++t) {
        accumulate_span(sums[s], score[t], num_experts);
        for (std::int64_t j = 0; j < top_k; ++j)
          if (index[t][j] >= 0) ++count[s][index[t][j]];
      }
    }
  });
}

void add_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                          const TensorView& lse, const AuxiliaryScale& scale,
                          const TensorView& sums) {
  const std::span<const std::int32_t> count = counts.span<std::int32_t>();
  const std::span<const float> score_sum = score_sums.span<float>();
  const double length = static_cast<double>(scale.sequence_length);
  const double num_slots = static_cast<double>(scale.sequence_length * scale.top_k);
  double products = 0;
  for (std::size_t i = 0; i < count.size(); ++i)
    products += (count[i] / num_slots) * (static_cast<double>(score_sum[i]) / length);
  double squares = 0;
  for (const float value : lse.span<float>())
    squares += static_cast<double>(value) * static_cast<double>(value);
  const std::span<double> out = sums.span<double>();
  out[0] += static_cast<double>(counts.cols()) * products / scale.num_sequences;
  out[1] += squares / scale.num_tokens;
}

void exact_balance_statistics(const TensorView& scores, const TensorView& indices,
                              std::int64_t sequence_length, const ExactTerms& score,
                              const TensorView& counts, const TensorView& score_sums) {
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const Rows<std::int32_t> count = rows_of<std::int32_t>(counts);
  const Rows<float> scores_of = rows_of<float>(scores);
  const Rows<double> sums = rows_of<double>(score_sums);
  const std::int64_t num_experts = scores.cols(), top_k = indices.cols();
  parallel_blocks(counts.rows(), 1, [&](std::int64_t s, std::int64_t) {
    std::fill_n(count[s], num_experts, 0);
    std::fill_n(sums[s], num_experts, 0.0);
    for (std::int64_t t = s * sequence_length; t < (s + 1) * sequence_length; ++t) {
      for (std::int64_t e = 0; e < num_experts; ++e)
        sums[s][e] += exact_term(static_cast<double>(scores_of[t][e]), score);
      for (std::int64_t j = 0; j < top_k; ++j)
        if (index[t][j] >= 0) ++count[s][index[t][j]];
    }
  });
}

void add_exact_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                                const TensorView& lse, const ExactAuxiliaryScale& scale,
                                const TensorView& sums) {
  const double num_experts = static_cast<double>(counts.cols());
  const double length = static_cast<double>(scale.sequence_length);
  const double num_slots = static_cast<double>(scale.sequence_length * scale.top_k);
  const std::span<double> out = sums.span<double>();
  for (std::int64_t s = 0; scale.counts_balance && s < counts.rows(); ++s) {
    double products = 0;
    for (std::int64_t e = 0; e < counts.cols(); ++e)
      products +=
          (counts.row<std::int32_t>(s)[e] / num_slots) * (score_sums.row<double>(s)[e] / length);
    out[0] += exact_term(num_experts * products, scale.balance);
  }
  for (const float value : lse.span<float>())
    out[1] += exact_term(static_cast<double>(value) * static_cast<double>(value), scale.z);
}

void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes) {
  const std::span<const std::int32_t> count = counts.span<std::int32_t>();
  const std::span<float> slope = slopes.span<float>();
  const double length = static_cast<double>(sequence_length);
  const double num_slots = static_cast<double>(sequence_length * top_k);
  const double factor = weight * static_cast<double>(counts.cols()) / (num_slots * length);
  for (std::size_t i = 0; i < count.size(); ++i) slope[i] = static_cast<float>(factor * count[i]);
}

void add_expert_load(const TensorView& counts, std::int64_t num_slots, const TensorView& load) {
  std::int64_t* sum = load.as<std::int64_t>();
  std::int64_t num_dropped = num_slots;
  for (const std::int32_t count : counts.span<std::int32_t>()) {
    *sum++ += count;
    num_dropped -= count;
  }
  *sum += num_dropped;
}

}  // namespace switchyard::kernels::cpu
