// The way of tensors whose memory the host cannot touch through a library that moves the host's:
// copies in buffers of Device::host() before an exchange starts and back when it is over. Tensors
// of host memory take no part in this. Private to parallel/.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/group/group.hpp"
#include "tensor/stream.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::mpi {

class Staging {
 public:
  enum class Use : std::uint8_t { read, write, read_and_write, scratch };

  // What the library is to use in place of a contiguous `view`: itself, or a buffer that holds its
  // contents (read) or whose contents it gets when the exchange is over (write).
  TensorView of(const TensorView& view, Use use);
  // The same, read whole, of which only the elements [begin, end) are written.
  TensorView of_part_written(const TensorView& view, std::int64_t begin, std::int64_t end);
  // A buffer, not read, of which the runs of rows that arrive are copied back and no others: these
  // may belong to another exchange that is under way.
  TensorView of_rows_written(const TensorView& view, const RankRows& rows);

  // `exchange`, followed by the copies back. The buffers live as long as it.
  Event then_back(Event exchange);

 private:
  struct Back {
    TensorView from;
    TensorView to;
  };
  class Exchange;
  TensorView buffer_for(const TensorView& view, bool is_read);

  std::vector<Tensor> buffers_;
  std::vector<Back> back_;
};

}  // namespace switchyard::mpi
