// What a timed call of a kernel works on: tensors that it owns.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "bench/kernel_cases.hpp"
#include "bench/measure.hpp"
#include "kernels/host_copy.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::bench {

// Tensors that a call holds.
class Operands {
 public:
  explicit Operands(Device& device) : device_(&device) {}

  TensorView make(DType dtype, const Shape& shape) {
    tensors_.emplace_back(*device_, Purpose::workspace, dtype, shape);
    const TensorView view = tensors_.back();
    if (dtype == DType::f32 || dtype == DType::bf16)
      fill_random(view, static_cast<std::uint32_t>(tensors_.size()));
    return view;
  }
  // Marks what the step has just written (KernelCall::fresh).
  TensorView fresh(const TensorView& view) {
    fresh_ = view;
    return view;
  }
  const TensorView& fresh() const { return fresh_; }
  // i32 [n]: 0, 1, 2, ..., or those modulo `below`.
  TensorView numbers(std::int64_t n, std::int64_t below = 0) {
    const TensorView view = make(DType::i32, {n});
    if (!device_->is_plan())
      kernels::write_from_host<std::int32_t>(view, [&](std::span<std::int32_t> to) {
        for (std::int64_t i = 0; i < n; ++i)
          to[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(below > 0 ? i % below : i);
      });
    return view;
  }
  Device& device() const { return *device_; }

 private:
  Device* device_;
  std::vector<Tensor> tensors_;
  TensorView fresh_;
};

// The call, with its operands, which live as long.
template <class Call>
KernelCall owning(const std::shared_ptr<Operands>& operands, Call call, const TensorView& fresh) {
  return {[operands, call = std::move(call)] { call(); }, fresh};
}
template <class Call>
KernelCall owning(const std::shared_ptr<Operands>& operands, Call call) {
  return owning(operands, std::move(call), operands->fresh());
}

using Held = std::shared_ptr<Operands>;
inline Held operands_on(Device& device) {
  return std::make_shared<Operands>(device);
}

}  // namespace switchyard::bench
