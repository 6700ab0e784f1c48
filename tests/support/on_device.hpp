// Values of a test as a tensor of any device.
#pragma once

#include <span>
#include <vector>

#include "kernels/host_copy.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::test {

template <class T>
Tensor tensor_of(Device& device, const std::vector<T>& values, Shape shape) {
  Tensor tensor(device, Purpose::workspace, DTypeOf<T>::value, shape);
  kernels::copy_from_host(std::span<const T>(values), tensor);
  return tensor;
}

}  // namespace switchyard::test
