// Memory of the host that a card copies from and to directly, and that does not move. To everybody
// else it is the host's memory like any other.
#pragma once

#include <memory>

#include "tensor/device.hpp"

namespace switchyard::cuda {

std::unique_ptr<Device> make_pinned_device();

}  // namespace switchyard::cuda
