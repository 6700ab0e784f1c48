// The one place that chooses an implementation by the tensor's device. Every operation is declared
// once in kernels/x.hpp and has twins of the same name in namespaces cpu, plan and cuda.
#pragma once

#include <utility>

#include "cmake/built_with.hpp"
#include "tensor/device.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels {

template <class OnCpu, class OnPlan, class OnCuda>
decltype(auto) dispatch(const Device& device, OnCpu&& on_cpu, OnPlan&& on_plan, OnCuda&& on_cuda) {
  switch (device.kind()) {
    case DeviceKind::cpu:
    case DeviceKind::fenced:
      return std::forward<OnCpu>(on_cpu)();
    case DeviceKind::plan:
      return std::forward<OnPlan>(on_plan)();
    case DeviceKind::cuda:
      if constexpr (built_with_cuda) return std::forward<OnCuda>(on_cuda)();
      break;
  }
  throw InternalError("this build has no kernels for the device cuda");
}

// For what never happens on a card, such as blocks for a processor's caches.
template <class OnCpu, class OnPlan>
decltype(auto) dispatch(const Device& device, OnCpu&& on_cpu, OnPlan&& on_plan) {
  return dispatch(device, std::forward<OnCpu>(on_cpu), std::forward<OnPlan>(on_plan),
                  []() -> decltype(on_cpu()) {
                    throw InternalError("this operation is not for the device cuda");
                  });
}

}  // namespace switchyard::kernels
