// The border to the host: the only ways by which bytes of a tensor whose memory the host cannot
// touch come to the host or leave it. Where the host can (cpu, pinned) they are plain copies. Each
// returns when the bytes are there: what the compute stream holds for the tensor is finished first.
// On the plan device nothing is copied.
#pragma once

#include <span>
#include <vector>

#include "tensor/error.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// view.num_bytes() bytes, row after row. Rows may be strided.
void copy_bytes_to_host(const TensorView& from, void* to);
void copy_bytes_from_host(const void* from, const TensorView& to);

template <class T>
void copy_to_host(const TensorView& from, std::span<T> to) {
  expect(from.dtype == DTypeOf<T>::value && from.numel() == std::ssize(to),
         "room for the tensor's elements, of their type");
  copy_bytes_to_host(from, to.data());
}

template <class T>
void copy_from_host(std::span<const T> from, const TensorView& to) {
  expect(to.dtype == DTypeOf<T>::value && to.numel() == std::ssize(from),
         "the tensor's elements, of their type");
  copy_bytes_from_host(from.data(), to);
}

// The contents of a contiguous tensor, for the host to read: the tensor's own memory where the host
// can touch it (then the tensor must outlive this, unchanged), else a copy.
template <class T>
class HostContents {
 public:
  explicit HostContents(const TensorView& view) {
    if (view.empty()) return;
    if (!view.device->has_own_memory()) {
      contents_ = view.host_span<T>();
      return;
    }
    copy_.resize(static_cast<std::size_t>(view.numel()));
    copy_to_host<T>(view, copy_);
    contents_ = copy_;
  }
  HostContents(const HostContents&) = delete;
  HostContents& operator=(const HostContents&) = delete;

  std::span<const T> span() const { return contents_; }

 private:
  std::vector<T> copy_;
  std::span<const T> contents_;
};

// Lets fill(std::span<T>) write all elements of a contiguous tensor; not on the plan device.
template <class T, class Fill>
void write_from_host(const TensorView& to, Fill&& fill) {
  if (to.empty() || to.device->is_plan()) return;
  if (!to.device->has_own_memory()) {
    fill(to.host_span<T>());
    return;
  }
  std::vector<T> contents(static_cast<std::size_t>(to.numel()));
  fill(std::span<T>(contents));
  copy_from_host<T>(contents, to);
}

}  // namespace switchyard::kernels
