// What is random in a router. A number is a function of (key, step, sequence, position) and of
// which expert or element it is for, so no layout and no second call changes it. Legend: T tokens,
// E experts, H hidden. site: of the tokens, one copy each (kernels/rows/elementwise.hpp);
// sequence_ids: i64 [T / site.sequence_length].
#pragma once

#include "kernels/rows/elementwise.hpp"

namespace switchyard::kernels {

// Noisy top-k (Shazeer et al.: Outrageously large neural networks, 2017, eq. 4):
//   logits[t, e] += n[t, e] * softplus(raw[t, e])
// n standard normal, raw the second linear map of the tokens. logits, raw: f32 [T, E].
void add_router_noise(const TensorView& raw, const DropoutSite& site,
                      const TensorView& sequence_ids, const TensorView& logits);

// Its gradient: draw[t, e] = dlogits[t, e] * n[t, e] * sigmoid(raw[t, e]). f32 [T, E]; draw is
// written and may be dlogits.
void router_noise_backward(const TensorView& dlogits, const TensorView& raw,
                           const DropoutSite& site, const TensorView& sequence_ids,
                           const TensorView& draw);

// x[t, h] *= 1 - epsilon + 2 epsilon u, u uniform in [0, 1) (Fedus, Zoph, Shazeer: Switch
// Transformers, 2021, section 2.4): of the router's input, and of its gradient, in place. x: f32
// [n, H], the tokens of the site from first_token on.
void jitter(const TensorView& x, std::int64_t first_token, float epsilon, const DropoutSite& site,
            const TensorView& sequence_ids);

// GShard's second expert (Lepikhin et al., 2020, algorithm 1): choice 1 is given up (-1) unless 2
// weights[t, 1] > u, u uniform in [0, 1). weights: f32 [T, 2]; indices: i32 [T, 2].
void give_up_second(const TensorView& weights, const DropoutSite& site,
                    const TensorView& sequence_ids, const TensorView& indices);

}  // namespace switchyard::kernels
