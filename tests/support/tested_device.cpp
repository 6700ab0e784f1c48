#include "tests/support/tested_device.hpp"

#include <fmt/core.h>

#include <cstdlib>
#include <string_view>

#include "cmake/built_with.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tests/support/card_in_host_memory.hpp"

namespace switchyard::test {

bool is_tested_on_card() {
  const char* name = std::getenv("SWITCHYARD_TEST_DEVICE");
  return name != nullptr && std::string_view(name) == "cuda";
}

void choose_tested_device() {
  if (!is_tested_on_card()) return;
  ::setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
  if constexpr (built_with_cuda)
    if (num_cuda_cards() > 0) return;
  fmt::print("no GPU: nothing was tested\n");
  std::exit(no_such_device);
}

std::unique_ptr<Device> make_tested_device() {
  choose_tested_device();
  if constexpr (built_with_cuda)
    if (is_tested_on_card()) return make_card_in_host_memory();
  return make_cpu_device();
}

}  // namespace switchyard::test
