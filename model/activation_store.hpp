// Where the records of spilled layers lie between the forward and the backward pass: the interface
// that the model uses. Copies run behind the computation; the caller leaves a tensor untouched
// until wait_for() says that nothing is under way for its layer. Who implements it owns the place.
#pragma once

#include <cstdint>
#include <span>

#include "experts/row_capacity.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

class ActivationStore {
 public:
  // Since the store was made; seconds in which the copying thread was at work.
  struct Statistics {
    double bytes_written = 0;
    double bytes_read = 0;
    double copy_seconds = 0;
  };

  virtual ~ActivationStore() = default;

  // Else in a file.
  virtual bool is_in_memory() const = 0;
  // Before the first pass: room for the record of `layer`. Tensors that follow the rows have room
  // for those of `capacity`, and grow with it.
  virtual void prepare(std::int64_t layer, std::span<const RecordTensor> record,
                       RowCapacity& capacity) = 0;
  // Starts to copy the rows in use out; IoError where there is no room.
  virtual void start_write(std::int64_t layer, std::span<const RecordTensor> record) = 0;
  // Starts to copy them back: the same names and rows as in the last write of the layer.
  virtual void start_read(std::int64_t layer, std::span<const RecordTensor> record) = 0;
  // Waits at most `seconds`; true if nothing is under way for the layer. An error of a copy (a full
  // disk) is thrown here.
  virtual bool wait_for(std::int64_t layer, double seconds) = 0;
  virtual Statistics statistics() const = 0;
};

}  // namespace switchyard
