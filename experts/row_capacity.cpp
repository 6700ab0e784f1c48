#include "experts/row_capacity.hpp"

#include <algorithm>

namespace switchyard {

void RowCapacity::add(Tensor& buffer) {
  grow(buffer);
  buffers_.push_back(&buffer);
}

RecordVisitor RowCapacity::adder() {
  return [this](const RecordTensor& part) {
    if (part.follows_rows) add(*part.tensor);
  };
}

void RowCapacity::require(std::int64_t rows) {
  if (planned_ || rows <= rows_) return;
  rows_ = rows;
  for (Tensor* buffer : buffers_) grow(*buffer);
}

void RowCapacity::grow(Tensor& buffer) const {
  buffer.grow_rows(std::min(rows_, buffer.max_rows()));
}

}  // namespace switchyard
