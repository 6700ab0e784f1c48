// The CPU twins of kernels/routing/router_noise.hpp.
#pragma once

#include "kernels/routing/router_noise.hpp"

namespace switchyard::kernels::cpu {

void add_router_noise(const TensorView& raw, const DropoutSite& site,
                      const TensorView& sequence_ids, const TensorView& logits);
void router_noise_backward(const TensorView& dlogits, const TensorView& raw,
                           const DropoutSite& site, const TensorView& sequence_ids,
                           const TensorView& draw);
void jitter(const TensorView& x, std::int64_t first_token, float epsilon, const DropoutSite& site,
            const TensorView& sequence_ids);
void give_up_second(const TensorView& weights, const DropoutSite& site,
                    const TensorView& sequence_ids, const TensorView& indices);

}  // namespace switchyard::kernels::cpu
