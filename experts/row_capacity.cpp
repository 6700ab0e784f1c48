#include "experts/row_capacity.hpp"

namespace switchyard {

void RowCapacity::add(Tensor& buffer) {
  buffer.grow_rows(rows_);
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
  for (Tensor* buffer : buffers_) buffer->grow_rows(rows);
}

}  // namespace switchyard
