// How many OpenMP threads the kernels of this process use.
#pragma once

namespace switchyard::kernels {

int num_threads();
void set_num_threads(int num_threads);  // at least 1

}  // namespace switchyard::kernels
