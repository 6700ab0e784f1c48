// Importance and load of the experts of noisy top-k, and the balance loss made of them (Shazeer et
// al.: Outrageously large neural networks, 2017, section 4 and appendix A). Legend: T tokens in S
// sequences of the same length, E experts, k choices.
//
//   importance_e = sum over tokens of the weight w_te of expert e
//   load_e = sum over tokens of P_te, the probability that expert e is chosen if its noise alone is
//            drawn anew: P_te = Phi((clean_te - threshold_te) / deviation_te)
//   loss = CV^2 of the importances and of the loads:  E (sum of v_e^2) / (sum of v_e)^2 - 1
// Phi is the normal distribution, deviation = softplus(raw), clean = logit - n * deviation with the
// noise n that was drawn, threshold_te the k-th largest logit of the token's other experts. All is
// in double; an order that the sizes alone decide.
#pragma once

#include "kernels/rows/elementwise.hpp"
#include "kernels/sums/sums.hpp"

namespace switchyard::kernels {

// How the tokens chose. logits, with their noise, and raw: f32 [T, E]; site, sequence_ids: those of
// add_router_noise().
struct NoisyChoice {
  TensorView logits;
  TensorView raw;
  DropoutSite site;
  TensorView sequence_ids;
  std::int64_t top_k = 1;
};

// sums[s, e] = sum over the tokens of sequence s of weights / scale where expert e was chosen.
// weights: f32 [T, k]; indices: i32 [T, k], -1: none; sums: f64 [S, E]. rounding: of each term in
// exact mode; else with quantum 0, none.
void sum_importance(const TensorView& weights, const TensorView& indices, double scale,
                    const ExactTerms& rounding, const TensorView& sums);
// sums[s, e] = sum over the tokens of sequence s of P_te. The same.
void sum_noisy_load(const NoisyChoice& choice, const ExactTerms& rounding, const TensorView& sums);
// Where there is no noise, the load is what was chosen: sums = counts. counts: i32 [S, E].
void counts_as_load(const TensorView& counts, const TensorView& sums);

// Row 0 becomes the sum of all rows; and all rows become as row 0. sums: f64 [S, E].
void pool_rows(const TensorView& sums);
void spread_first_row(const TensorView& sums);

// losses[0] += factor * (sum over s of CV^2 of row s), each rounded in exact mode. A row without
// anything counts 0. losses: f64 [2].
void add_variation(const TensorView& sums, double factor, const ExactTerms& rounding,
                   const TensorView& losses);
// slopes[s, e] = weight * (slope of CV^2 of row s to sums[s, e]). slopes: f32 [S, E], written.
void variation_slopes(const TensorView& sums, double weight, const TensorView& slopes);

// dweights[t, j] += slopes[s(t), indices[t, j]] / scale. dweights: f32 [T, k].
void add_importance_gradient(const TensorView& slopes, const TensorView& indices, double scale,
                             const TensorView& dweights);
// The gradient of sum over t and e of slopes[s(t), e] P_te, in two parts that follow from one chain
// rule: P is a function of the logits with their noise, and of the raw deviations directly.
// dlogits, draw: f32 [T, E], added to. What reaches raw through the logits is
// router_noise_backward's.
void add_load_gradient(const NoisyChoice& choice, const TensorView& slopes,
                       const TensorView& dlogits);
void add_load_noise_gradient(const NoisyChoice& choice, const TensorView& slopes,
                             const TensorView& draw);

}  // namespace switchyard::kernels
