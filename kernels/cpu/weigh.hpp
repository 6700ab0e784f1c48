// The CPU twins of kernels/weigh.hpp.
#pragma once

#include "kernels/weigh.hpp"

namespace switchyard::kernels::cpu {

void weigh(const TensorView& scores, const TensorView& indices, const Weighing& weighing,
           const TensorView& weights);
void weigh_backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                    const Weighing& weighing, const TensorView& dchosen);

}  // namespace switchyard::kernels::cpu
