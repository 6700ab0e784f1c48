// How many OpenMP threads the kernels of this process use.
#pragma once

namespace switchyard::kernels {

int num_threads();

}  // namespace switchyard::kernels
