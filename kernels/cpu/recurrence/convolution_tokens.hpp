// The tokens of a sequence, as convolutions over the last few of a document read them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/recurrence/short_convolution.hpp"

namespace switchyard::kernels::cpu {

// body(row of y, row of x, tokens before it that count) for the tokens of a sequence.
template <class Body>
void for_each_token(const ConvolutionShape& shape, std::int64_t sequence, const Body& body) {
  std::span<const std::int32_t> starts;
  if (!shape.document_starts.empty())
    starts = shape.document_starts[static_cast<std::size_t>(sequence)];
  std::int64_t row = sequence * num_positions(shape.held);
  const std::int64_t first_read = sequence * num_positions(shape.read);
  std::size_t next = 0;  // document
  std::int64_t document = 0;
  for (const PositionRange& range : shape.held) {
    const std::int64_t shift = first_read + count_before(shape.read, range.begin) - range.begin;
    for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
      while (next < starts.size() && starts[next] <= p) document = starts[next++];
      body(row, shift + p, std::min(shape.width - 1, p - document));
    }
  }
}

}  // namespace switchyard::kernels::cpu
