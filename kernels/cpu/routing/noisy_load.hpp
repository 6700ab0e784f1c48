// The CPU twins of kernels/routing/noisy_load.hpp.
#pragma once

#include "kernels/routing/noisy_load.hpp"

namespace switchyard::kernels::cpu {

void sum_importance(const TensorView& weights, const TensorView& indices, double scale,
                    const ExactTerms& rounding, const TensorView& sums);
void sum_noisy_load(const NoisyChoice& choice, const ExactTerms& rounding, const TensorView& sums);
void counts_as_load(const TensorView& counts, const TensorView& sums);
void pool_rows(const TensorView& sums);
void spread_first_row(const TensorView& sums);
void add_variation(const TensorView& sums, double factor, const ExactTerms& rounding,
                   const TensorView& losses);
void variation_slopes(const TensorView& sums, double weight, const TensorView& slopes);
void add_importance_gradient(const TensorView& slopes, const TensorView& indices, double scale,
                             const TensorView& dweights);
void add_load_gradient(const NoisyChoice& choice, const TensorView& slopes,
                       const TensorView& dlogits);
void add_load_noise_gradient(const NoisyChoice& choice, const TensorView& slopes,
                             const TensorView& draw);

}  // namespace switchyard::kernels::cpu
