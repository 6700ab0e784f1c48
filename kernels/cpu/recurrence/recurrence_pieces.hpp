// How the work of kernels/recurrence/linear_recurrence.hpp is given to threads, and what its passes
// share.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/recurrence_chunk.hpp"
#include "kernels/cpu/recurrence/recurrence_rows.hpp"

namespace switchyard::kernels::cpu {

// Part of the workspace that all threads share.
struct SharedScratch {
  SharedScratch(Carver& carver, const RecurrenceShape& shape)
      : dskip(carver.take<double>(shape.num_sequences * shape.num_heads)) {
    const std::int64_t parts = parts_of_group(shape);
    const std::int64_t rows = parts == 1 ? 0 : shape.num_sequences * shape.num_groups * parts;
    parts_dq = carver.take<float>(rows * shape.length() * shape.key_width);
    parts_dk = carver.take<float>(rows * shape.length() * shape.key_width);
  }
  double* dskip;  // [S, A]
  // [S, G, parts, n, d_k]: sums over the heads of each part of a group, where there are several.
  float *parts_dq, *parts_dk;
};
inline std::int64_t recurrence_shared_bytes(const RecurrenceShape& shape) {
  Carver carver(nullptr);
  const SharedScratch counted(carver, shape);
  return carver.bytes_from_null();
}

// body(sequence, first head, end head, scratch) for every `heads` heads in turn.
template <class Body>
void for_heads(std::int64_t heads, const RecurrenceShape& shape, const TensorView& workspace,
               const Poll& poll, Body&& body) {
  const std::int64_t shared = recurrence_shared_bytes(shape), each = ChunkScratch::bytes(shape);
  const std::int64_t places = (workspace.num_bytes() - shared) / each;
  const std::int64_t pieces = shape.num_heads / heads;
  for_each_piece(
      shape.num_sequences * pieces,
      [&](std::int64_t piece, int thread) {
        Carver carver(workspace.kernel_bytes() + shared + thread * each);
        const ChunkScratch scratch(carver, shape);
        const std::int64_t first = piece % pieces * heads;
        body(piece / pieces, first, first + heads, scratch);
        if (poll && thread == 0) poll();
      },
      static_cast<int>(std::min<std::int64_t>(places, num_threads())));
}
template <class Body>
void for_each_head(const RecurrenceShape& shape, const TensorView& workspace, const Poll& poll,
                   Body&& body) {
  for_heads(1, shape, workspace, poll, body);
}

// body(first row, number of rows) for the chunks of a span, in order. Segments end at multiples of
// their length, other chunks are counted from the span's first row.
template <class Body>
void for_each_chunk(const RecurrenceShape& shape, const Span& span, Body&& body) {
  const std::int64_t before = shape.exclusive ? span.position % shape.chunk : 0;
  for (std::int64_t at = 0; at < span.count;) {
    const std::int64_t room = shape.chunk - (at == 0 ? before : 0);
    const std::int64_t count = std::min(room, span.count - at);
    body(span.row + at, count);
    at += count;
  }
}

// The same, the last first; body(number of the chunk, first row, number of rows).
template <class Body>
void for_each_chunk_backwards(const RecurrenceShape& shape, const Span& span, Body&& body) {
  std::vector<std::pair<std::int64_t, std::int64_t>> chunks;
  for_each_chunk(shape, span,
                 [&](std::int64_t row, std::int64_t count) { chunks.emplace_back(row, count); });
  for (std::size_t i = chunks.size(); i-- > 0;)
    body(static_cast<std::int64_t>(i), chunks[i].first, chunks[i].second);
}

// The block of a run, sequence and head in a tensor [R S A, size].
inline float* block_of(const RecurrenceShape& shape, const TensorView& blocks, std::int64_t run,
                       std::int64_t sequence, std::int64_t head) {
  const std::int64_t row = (run * shape.num_sequences + sequence) * shape.num_heads + head;
  return rows_of<float>(blocks)[row];
}

// The state before a span.
inline void begin_state(const RecurrenceShape& shape, const TensorView& states, const Span& span,
                        std::int64_t sequence, std::int64_t head, float* state) {
  if (states.empty() || span.begins)
    std::fill_n(state, shape.state_size(), 0.0f);
  else
    std::copy_n(block_of(shape, states, span.run, sequence, head), shape.state_size(), state);
}

// Rows of dout as the recurrence sees them: with the column of the denominators.
void load_dout(const RecurrenceShape& shape, const RecurrenceOutputs& outputs,
               const TensorView& dout, std::int64_t head, std::int64_t row, std::int64_t count,
               const ChunkScratch& scratch);

}  // namespace switchyard::kernels::cpu
