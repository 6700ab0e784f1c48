// Tensor owns memory of a device under a purpose; TensorView borrows it and goes by value. Views
// are what kernels take: a pointer, a shape, an element type, the distance between rows.
//
// A tensor may be growable: it is created for a largest number of rows, uses and counts only those
// that were asked for so far, and keeps address and contents when it grows. Buffers whose size the
// router decides are growable, so that memory follows the load and no step copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/code_location.hpp"
#include "tensor/device.hpp"
#include "tensor/dtype.hpp"
#include "tensor/shape.hpp"

namespace switchyard {

// Rows (dim 0) may lie apart (row_stride elements from one to the next); the inner dims are dense.
// Constness is by convention: a function says which of its views it writes.
struct TensorView {
  std::byte* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  std::int64_t row_stride = 0;  // elements
  Device* device = nullptr;

  std::int64_t rows() const { return shape[0]; }
  std::int64_t cols() const { return shape.inner_numel(); }  // elements in a row
  std::int64_t numel() const { return shape.numel(); }
  std::int64_t num_bytes() const { return numel() * size_of(dtype); }
  bool empty() const { return device == nullptr || numel() == 0; }
  bool is_contiguous() const { return rows() <= 1 || row_stride == cols(); }

  // For the host, and only for memory that it can touch (cpu, pinned): elsewhere InternalError that
  // names the place of the call. The element type must be T. What the host wants of other memory
  // goes through kernels/host_copy.hpp.
  template <class T>
  T* host(CodeLocation where = CodeLocation::current()) const {
    return reinterpret_cast<T*>(host_bytes(DTypeOf<T>::value, where));
  }
  template <class T>
  std::span<T> host_span(CodeLocation where = CodeLocation::current()) const {  // contiguous views
    check_contiguous();
    return {host<T>(where), static_cast<std::size_t>(numel())};
  }
  // Bytes of any type, likewise.
  std::byte* host_bytes(CodeLocation where = CodeLocation::current()) const {
    return host_bytes(dtype, where);
  }

  // For kernels, which run where the memory is. The element type must be T, and the device must
  // not be `plan`. Nobody outside kernels/ calls these (tests/structure/host_border.sh).
  template <class T>
  T* as() const {
    check_access(DTypeOf<T>::value);
    return reinterpret_cast<T*>(kernel_bytes());
  }
  std::byte* kernel_bytes() const { return data + device->kernel_offset(); }
  template <class T>
  T* row(std::int64_t i) const {
    return as<T>() + i * row_stride;
  }
  template <class T>
  std::span<T> span() const {  // contiguous views only
    check_contiguous();
    return {as<T>(), static_cast<std::size_t>(numel())};
  }

  TensorView slice_rows(std::int64_t begin, std::int64_t end) const;
  TensorView slice_cols(std::int64_t begin, std::int64_t end) const;  // two dims only
  TensorView operator[](std::int64_t i) const;  // without dim 0: element i along it
  TensorView reshape(Shape to) const;           // contiguous views, same numel
  TensorView flat() const { return reshape({numel()}); }
  // The first bytes of a contiguous view as a view of other elements.
  TensorView reinterpret(DType as, Shape to) const;

 private:
  std::byte* host_bytes(DType wanted, CodeLocation where) const;
  void check_access(DType wanted) const;
  void check_contiguous() const;
};

// Borrows host memory that is not a Tensor's (an array of a test, a mapped file) as a view.
template <class T>
TensorView view_of(Device& device, T* data, Shape shape) {
  return {reinterpret_cast<std::byte*>(data), shape, DTypeOf<T>::value, shape.inner_numel(),
          &device};
}

// Move-only owner. Contents start as zeros on the CPU.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Device& device, Purpose purpose, DType dtype, Shape shape);
  // Room for max_shape[0] rows of which none is in use yet.
  static Tensor growable(Device& device, Purpose purpose, DType dtype, Shape max_shape);
  ~Tensor() { release(); }
  Tensor(Tensor&& other) noexcept { swap(other); }
  Tensor& operator=(Tensor&& other) noexcept;

  // Makes the first `rows` rows usable; never shrinks. InternalError beyond the largest number.
  void grow_rows(std::int64_t rows);

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: a tensor reads as its view
  const TensorView* operator->() const { return &view_; }
  bool empty() const { return view_.device == nullptr; }
  // Rows that it may grow to.
  std::int64_t max_rows() const;

 private:
  void release() noexcept;
  void swap(Tensor& other) noexcept;

  TensorView view_;
  Purpose purpose_ = Purpose::workspace;
  std::int64_t max_bytes_ = 0;  // reserved
  std::int64_t committed_ = 0;  // rounded, as counted in the ledger
  bool is_growable_ = false;
};

}  // namespace switchyard
