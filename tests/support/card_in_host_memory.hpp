// The device `cuda` of tests (tested_device.hpp). Built with the GPU part alone.
#pragma once

#include <memory>

#include "tensor/device.hpp"

namespace switchyard::test {

std::unique_ptr<Device> make_card_in_host_memory();

}  // namespace switchyard::test
