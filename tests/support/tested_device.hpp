// The device that a test of kernels runs on, so that one test serves them all: the CPU, or what
// SWITCHYARD_TEST_DEVICE names.
//
// `cuda` is a card whose tensors lie in pinned memory of the host, which kernels of the card reach
// across the bus: a test reads and writes its operands through TensorView::as as it does on the
// CPU. Every launch is waited for (CUDA_LAUNCH_BLOCKING=1, set here). Slow, and right for small
// operands.
#pragma once

#include "tensor/device.hpp"

namespace switchyard::test {

// What a test program exits with where the device that it is for is not there; ctest counts it as
// skipped (SKIP_RETURN_CODE).
inline constexpr int no_such_device = 77;

// Ends the program with no_such_device, and says so, where there is no card and one was asked for.
// At the head of a main() that starts MPI; elsewhere the first device made sees to it.
void choose_tested_device();
bool is_tested_on_card();

std::unique_ptr<Device> make_tested_device();

}  // namespace switchyard::test
