#include "tensor/shape.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

#include "tensor/error.hpp"

namespace switchyard {

void refuse_size(const Shape& shape) {
  throw MemoryError(
      fmt::format("a tensor {} fits into no machine's memory; make the model, its sequences or the "
                  "batches smaller",
                  shape.to_string()));
}

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  expect(dims.size() <= max_dims, "at most four dims");
  for (std::int64_t n : dims) {
    expect(n >= 0, "dims of at least 0");
    dims_[static_cast<std::size_t>(num_dims_++)] = n;
  }
}

std::int64_t Shape::numel() const {
  std::int64_t product = 1;
  for (int d = 0; d < num_dims_; ++d)
    if (__builtin_mul_overflow(product, (*this)[d], &product)) refuse_size(*this);
  return product;
}

std::int64_t Shape::inner_numel() const {
  return num_dims_ == 0 ? 1 : with_dim0(1).numel();
}

Shape Shape::with_dim(int dim, std::int64_t n) const {
  expect(0 <= dim && dim < num_dims_ && n >= 0, "a dim of the shape, and a count of at least 0");
  Shape copy = *this;
  copy.dims_[static_cast<std::size_t>(dim)] = n;
  return copy;
}

std::string Shape::to_string() const {
  return fmt::format("[{}]",
                     fmt::join(std::span(dims_).first(static_cast<std::size_t>(num_dims_)), ", "));
}

}  // namespace switchyard
