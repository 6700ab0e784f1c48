// A device whose memory only kernels can touch: every tensor's address lies in pages that are
// protected for ever, and kernels use others at a fixed distance. Whatever else reads or writes a
// tensor dies of a segmentation fault that names the address and prints the stack; a system call
// that is given such an address answers EFAULT. This is how the border to the host is held on
// machines without a GPU.
#pragma once

#include <memory>

#include "tensor/device.hpp"

namespace switchyard::test {

std::unique_ptr<Device> make_fenced_device();
// How often the host has waited for the device's compute stream, as it must before it reads what
// kernels computed.
std::int64_t num_host_waits(Device& fenced);

}  // namespace switchyard::test
