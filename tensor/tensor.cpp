#include "tensor/tensor.hpp"

#include <algorithm>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Pointer arithmetic that leaves the null address of the plan device alone.
std::byte* offset(std::byte* data, std::int64_t bytes) {
  return data == nullptr ? data : data + bytes;
}

}  // namespace

void TensorView::check_access(DType wanted) const {
  expect(device != nullptr && !device->is_plan(), "a tensor with memory");
  expect(dtype == wanted, "an access by the tensor's own element type");
}

std::byte* TensorView::host_bytes(DType wanted, CodeLocation where) const {
  expect(device != nullptr && device->is_host_memory(),
         "a tensor that the host can touch; others go through kernels/host_copy.hpp", where);
  expect(dtype == wanted, "an access by the tensor's own element type", where);
  return data;
}

void TensorView::check_contiguous() const {
  expect(is_contiguous(), "a contiguous view");
}

TensorView TensorView::slice_rows(std::int64_t begin, std::int64_t end) const {
  expect(0 <= begin && begin <= end && end <= rows(), "a row range inside the view");
  TensorView part = *this;
  part.data = offset(data, begin * row_stride * size_of(dtype));
  part.shape = shape.with_dim0(end - begin);
  return part;
}

TensorView TensorView::slice_cols(std::int64_t begin, std::int64_t end) const {
  expect(shape.num_dims() == 2 && 0 <= begin && begin <= end && end <= cols(),
         "a column range inside a view of two dims");
  TensorView part = *this;
  part.data = offset(data, begin * size_of(dtype));
  part.shape = {rows(), end - begin};
  return part;
}

TensorView TensorView::operator[](std::int64_t i) const {
  expect(shape.num_dims() >= 2 && 0 <= i && i < rows(), "an index inside dim 0");
  TensorView part = *this;
  part.data = offset(data, i * row_stride * size_of(dtype));
  part.shape = shape.num_dims() == 2   ? Shape{shape[1]}
               : shape.num_dims() == 3 ? Shape{shape[1], shape[2]}
                                       : Shape{shape[1], shape[2], shape[3]};
  part.row_stride = part.shape.inner_numel();
  return part;
}

TensorView TensorView::reshape(Shape to) const {
  check_contiguous();
  expect(to.numel() == numel(), "a reshape that keeps the number of elements");
  TensorView other = *this;
  other.shape = to;
  other.row_stride = to.inner_numel();
  return other;
}

TensorView TensorView::reinterpret(DType as, Shape to) const {
  check_contiguous();
  TensorView other = *this;
  other.dtype = as;
  other.shape = to;
  other.row_stride = to.inner_numel();
  expect(other.num_bytes() <= num_bytes(), "no more bytes than the view has");
  return other;
}

namespace {

std::int64_t checked_bytes(DType dtype, const Shape& shape) {
  expect(shape.num_dims() > 0, "at least one dim");
  constexpr std::int64_t most_elements = std::int64_t{1} << 59;  // with 8 bytes each: no overflow
  if (shape.numel() > most_elements) refuse_size(shape);
  return shape.numel() * size_of(dtype);
}

}  // namespace

Tensor::Tensor(Device& device, Purpose purpose, DType dtype, Shape shape) : purpose_(purpose) {
  const std::int64_t bytes = checked_bytes(dtype, shape);
  std::byte* address = bytes > 0 ? device.allocate(bytes) : nullptr;
  view_ = {address, shape, dtype, shape.inner_numel(), &device};
  max_bytes_ = bytes;
  committed_ = MemoryLedger::rounded(bytes);
  device.memory().add(purpose, committed_);
  device.memory().reserve(committed_);
}

Tensor Tensor::growable(Device& device, Purpose purpose, DType dtype, Shape max_shape) {
  Tensor tensor;
  tensor.purpose_ = purpose;
  tensor.is_growable_ = true;
  tensor.max_bytes_ = checked_bytes(dtype, max_shape);
  std::byte* address = tensor.max_bytes_ > 0 ? device.reserve(tensor.max_bytes_) : nullptr;
  tensor.view_ = {address, max_shape.with_dim0(0), dtype, max_shape.inner_numel(), &device};
  device.memory().reserve(MemoryLedger::rounded(tensor.max_bytes_));
  return tensor;
}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  if (this != &other) {
    release();
    swap(other);
  }
  return *this;
}

void Tensor::grow_rows(std::int64_t rows) {
  if (rows <= view_.rows()) return;
  const std::int64_t bytes = rows * view_.row_stride * size_of(view_.dtype);
  expect(bytes <= max_bytes_, "no more rows than were reserved");
  const std::int64_t rounded = MemoryLedger::rounded(bytes);
  view_.device->commit(view_.data, committed_, bytes);
  view_.device->memory().add(purpose_, rounded - committed_);
  committed_ = rounded;
  view_.shape = view_.shape.with_dim0(rows);
}

std::int64_t Tensor::max_rows() const {
  const std::int64_t row_bytes = view_.row_stride * size_of(view_.dtype);
  return row_bytes > 0 ? max_bytes_ / row_bytes : 0;
}

void Tensor::release() noexcept {
  if (view_.device == nullptr) return;
  view_.device->memory().remove(purpose_, committed_);
  view_.device->memory().unreserve(MemoryLedger::rounded(max_bytes_));
  if (view_.data != nullptr && is_growable_) view_.device->release(view_.data, max_bytes_);
  if (view_.data != nullptr && !is_growable_) view_.device->deallocate(view_.data, max_bytes_);
  view_ = {};
  is_growable_ = false;
  max_bytes_ = committed_ = 0;
}

void Tensor::swap(Tensor& other) noexcept {
  std::swap(view_, other.view_);
  std::swap(purpose_, other.purpose_);
  std::swap(max_bytes_, other.max_bytes_);
  std::swap(committed_, other.committed_);
  std::swap(is_growable_, other.is_growable_);
}

}  // namespace switchyard
