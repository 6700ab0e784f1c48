// Positive random features of softmax attention (FAVOR+: Choromanski et al., "Rethinking attention
// with Performers", 2021). With x' = x / width^{1/4} and m directions w_r drawn from a normal
// distribution, the mean over r of e^{w_r.q' - |q'|^2/2} e^{w_r.k' - |k'|^2/2} is expected to be
// e^{q.k / sqrt(width)}. Linear attention divides by the sum of its weights, so factors of a query
// do not count, nor those that all keys have of one direction if queries have their inverse:
//   queries  phi_r = e^{w_r.q' + |w_r|^2/2 - (the largest of these)}    at most 1
//   keys     phi_r = e^{c - |k' - w_r|^2/2}, c = width / 2, at most 64  at most e^c
// Both are bounded without the maximum over all keys that is published beside them: with that one
// tokens learn of later ones. Exponents end at -60: a key far from every direction weighs next to
// nothing, as others like it, instead of making a mean of nothing.
// Gradients: dq' = sum over r of dphi_r phi_r w_r, dk' = sum of dphi_r phi_r (w_r - k'). Of the
// queries' it is that of the mean, which their largest exponent does not change.
// x, dx: [T, heads * width]; y, dy: [T, heads * m] of the same type (f32 or bf16); directions: f32
// [m, width], contiguous, for all heads.
#pragma once

#include <cstdint>

#include "tensor/device.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

enum class FeatureSide : std::uint8_t { queries, keys };

void random_features_forward(FeatureSide side, const TensorView& x, const TensorView& directions,
                             const TensorView& y, const TensorView& workspace);
void random_features_backward(FeatureSide side, const TensorView& dy, const TensorView& x,
                              const TensorView& directions, const TensorView& dx,
                              const TensorView& workspace);
// On the device, or that for which it plans.
std::int64_t random_features_workspace_bytes(std::int64_t width, std::int64_t num_features,
                                             const PlanTarget& target);

}  // namespace switchyard::kernels
