// The one place that chooses an implementation by the tensor's device. Every operation is declared
// once in kernels/x.hpp and has twins of the same name in namespaces cpu and plan (and, later,
// cuda).
#pragma once

#include <utility>

#include "tensor/device.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels {

template <class OnCpu, class OnPlan>
decltype(auto) dispatch(const Device& device, OnCpu&& on_cpu, OnPlan&& on_plan) {
  switch (device.kind()) {
    case DeviceKind::cpu:
    case DeviceKind::fenced:
      return std::forward<OnCpu>(on_cpu)();
    case DeviceKind::plan:
      return std::forward<OnPlan>(on_plan)();
    case DeviceKind::cuda:
      break;
  }
  throw InternalError("this build has no kernels for the device cuda");
}

}  // namespace switchyard::kernels
