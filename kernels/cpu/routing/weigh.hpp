// The CPU twins of kernels/routing/weigh.hpp.
#pragma once

#include "kernels/routing/weigh.hpp"

namespace switchyard::kernels::cpu {

void weigh(const TensorView& scores, const TensorView& indices, const Weighing& weighing,
           const TensorView& weights);
void weigh_backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                    const Weighing& weighing, const TensorView& dchosen);

}  // namespace switchyard::kernels::cpu
