// The rows for which expert-side buffers have room: as many as this rank received in any layer so
// far and, once a step is over, as many as the fullest rank did. All layers and, between steps, all
// ranks share the figure, so memory is a function of one number (`max_rows`), which a run reports
// and a plan takes. When a layer receives more, every registered buffer grows in place, up to the
// most rows that it was made for: with experts.max_rows buffers hold a part of the rows at once.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/record_tensor.hpp"

namespace switchyard {

class RowCapacity {
 public:
  // planned_rows > 0 (plan device only): the figure to assume whatever the balanced load is.
  explicit RowCapacity(std::int64_t planned_rows = 0)
      : rows_(planned_rows), planned_(planned_rows > 0) {}
  RowCapacity(const RowCapacity&) = delete;
  RowCapacity& operator=(const RowCapacity&) = delete;

  // A growable tensor; it must outlive this object's use and stay where it is.
  void add(Tensor& buffer);
  // Adds the tensors of a record that follow the rows: record.for_each_tensor(capacity.adder()).
  RecordVisitor adder();
  // Room for `rows` rows in every buffer, or for as many as it may have. A planned figure stays as
  // it is.
  void require(std::int64_t rows);
  std::int64_t rows() const { return rows_; }
  bool is_planned() const { return planned_; }

 private:
  void grow(Tensor& buffer) const;

  std::int64_t rows_ = 0;
  bool planned_ = false;
  std::vector<Tensor*> buffers_;
};

}  // namespace switchyard
