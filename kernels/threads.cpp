#include "kernels/threads.hpp"

#include <omp.h>

namespace switchyard::kernels {

int num_threads() {
  return omp_get_max_threads();
}

}  // namespace switchyard::kernels
