#include "kernels/gradient_sum.hpp"

#include "kernels/cpu/products/exact_weight_gradient.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels {

void reserve_exact_sums(Device& device) {
  device.kernel_scratch(cpu::exact_weight_gradient_scratch(num_threads_of(device)));
}

}  // namespace switchyard::kernels
