#include "kernels/threads.hpp"

#include <omp.h>

#include "tensor/error.hpp"

namespace switchyard::kernels {

int num_threads() { return omp_get_max_threads(); }

void set_num_threads(int num_threads) {
  expect(num_threads >= 1, "at least one thread");
  omp_set_num_threads(num_threads);
}

}  // namespace switchyard::kernels
