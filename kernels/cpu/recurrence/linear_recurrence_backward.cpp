#include <algorithm>

#include "kernels/cpu/recurrence/linear_recurrence.hpp"
#include "kernels/cpu/recurrence/recurrence_pieces.hpp"

namespace switchyard::kernels::cpu {

namespace {

struct BackwardTask {
  const RecurrenceShape& shape;
  const RecurrenceInputs& inputs;
  const RecurrenceOutputs& outputs;
  const TensorView& dout;
  const RecurrenceGradients& gradients;
  double* dskip;  // [S, A]
};

// dq and dk of a chunk, to the tensors, or to the sums over the heads that share keys.
void give_keys(const BackwardTask& task, std::int64_t sequence, const Chunk& chunk,
               const ChunkScratch& s) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t keys = shape.key_width, count = chunk.count();
  if (shape.delta) subtract_block(s.dk, s.dk_add, count * keys, -1);
  if (shape.num_heads == shape.num_groups) {
    const std::int64_t begin = chunk.group() * keys;
    store_block(s.dq, keys, shape.scale, task.gradients.dq, {chunk.row(), count, begin, keys});
    store_block(s.dk, keys, 1, task.gradients.dk, {chunk.row(), count, begin, keys});
    return;
  }
  const std::int64_t first = (chunk.row() - sequence * shape.length()) * keys;
  subtract_block(s.group_dq + first, s.dq, count * keys, -1);
  subtract_block(s.group_dk + first, s.dk, count * keys, -1);
}

// dv, and what follows from it: that of the steps and of the skip.
void give_values(const BackwardTask& task, std::int64_t sequence, std::int64_t head,
                 const Chunk& chunk, const ChunkScratch& s) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t width = shape.value_width, w = shape.state_cols(), count = chunk.count();
  const float* given = chunk.dv();
  if (!task.inputs.steps.empty()) {
    row_dots(given, s.raw_v, count, w, s.by_token);
    for (std::int64_t i = 0; i < count; ++i)
      rows_of<float>(task.gradients.dsteps)[chunk.row() + i][head] = s.by_token[i];
    scaled_rows(given, count, w, s.steps, s.by_values);
    given = s.by_values;
  }
  if (!task.inputs.skip.empty()) {
    if (given != s.by_values) std::copy_n(given, count * w, s.by_values);
    given = s.by_values;
    subtract_block(s.by_values, s.dout, count * w, -task.inputs.skip.as<float>()[head]);
    row_dots(s.dout, s.raw_v, count, w, s.by_token);
    double& sum = task.dskip[sequence * shape.num_heads + head];
    for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(s.by_token[i]);
  }
  store_block(given, w, 1, task.gradients.dv, {chunk.row(), count, head * width, width});
}

void give_token_values(const BackwardTask& task, std::int64_t head, const Chunk& chunk,
                       const ChunkScratch& s) {
  for (std::int64_t i = 0; i < chunk.count(); ++i) {
    const std::int64_t row = chunk.row() + i;
    if (!task.gradients.dgates.empty())
      rows_of<float>(task.gradients.dgates)[row][head] = s.dgates[i];
    if (task.shape.delta) rows_of<float>(task.gradients.dbetas)[row][head] = s.dbetas[i];
  }
}

// Chunks of a span, the last first: the states before each are made first, and what the delta rule
// makes of each chunk.
void differentiate_span(const BackwardTask& task, const Span& span, std::int64_t sequence,
                        std::int64_t head, const ChunkScratch& scratch) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t size = shape.state_size();
  std::int64_t number = 0;
  for_each_chunk(shape, span, [&](std::int64_t row, std::int64_t count) {
    const ChunkScratch s = scratch.of_chunk(shape, row - span.row, number);
    Chunk chunk(shape, task.inputs, head, s);
    chunk.load_keys(row, count);
    chunk.load_values();
    chunk.make_lower();
    float* const next = s.states + ++number * size;
    std::copy_n(next - size, size, next);
    chunk.advance(next);
  });
  for_each_chunk_backwards(shape, span, [&](std::int64_t i, std::int64_t row, std::int64_t count) {
    const ChunkScratch s = scratch.of_chunk(shape, row - span.row, i);
    const float* state = s.states + i * size;
    Chunk chunk(shape, task.inputs, head, s);
    chunk.load_keys(row, count);
    chunk.load_queries();
    chunk.load_values();
    chunk.make_pairs();
    load_dout(shape, task.outputs, task.dout, head, row, count, s);
    chunk.differentiate(state, s.d_state);
    give_keys(task, sequence, chunk, s);
    give_values(task, sequence, head, chunk, s);
    give_token_values(task, head, chunk, s);
  });
}

void differentiate_head(const BackwardTask& task, const TensorView& states, const TensorView& d_end,
                        const TensorView& d_states, std::int64_t sequence, std::int64_t head,
                        const ChunkScratch& s) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t size = shape.state_size();
  const std::vector<Span> spans = spans_of(shape, sequence);
  for (std::size_t i = spans.size(); i-- > 0;) {
    const Span& span = spans[i];
    const bool is_last = i + 1 == spans.size() || spans[i + 1].run != span.run;
    if (is_last && !d_end.empty())
      std::copy_n(block_of(shape, d_end, span.run, sequence, head), size, s.d_state);
    else
      std::fill_n(s.d_state, size, 0.0f);
    begin_state(shape, states, span, sequence, head, s.states);
    differentiate_span(task, span, sequence, head, s);
    const bool is_first = i == 0 || spans[i - 1].run != span.run;
    if (!is_first || d_states.empty()) continue;
    float* const to = block_of(shape, d_states, span.run, sequence, head);
    if (span.begins)
      std::fill_n(to, size, 0.0f);
    else
      std::copy_n(s.d_state, size, to);
  }
}

}  // namespace

namespace {

void store_keys(const BackwardTask& task, std::int64_t sequence, std::int64_t group,
                const PositionRange& rows, const float* dq, const float* dk) {
  const std::int64_t keys = task.shape.key_width;
  const BlockPlace place{sequence * task.shape.length() + rows.begin, rows.count, group * keys,
                         keys};
  store_block(dq, keys, task.shape.scale, task.gradients.dq, place);
  store_block(dk, keys, 1, task.gradients.dk, place);
}

// Adds up the parts of each group, in their order.
void store_parts(const BackwardTask& task, const SharedScratch& shared) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t parts = parts_of_group(shape), keys = shape.key_width;
  const std::int64_t size = shape.length() * keys;
  for (std::int64_t i = 0; i < shape.num_sequences * shape.num_groups; ++i)
    parallel_rows(shape.length(), keys, [&](std::int64_t begin, std::int64_t end) {
      float* const dq = shared.parts_dq + i * parts * size + begin * keys;
      float* const dk = shared.parts_dk + i * parts * size + begin * keys;
      for (std::int64_t part = 1; part < parts; ++part) {
        subtract_block(dq, dq + part * size, (end - begin) * keys, -1);
        subtract_block(dk, dk + part * size, (end - begin) * keys, -1);
      }
      store_keys(task, i / shape.num_groups, i % shape.num_groups, {begin, end - begin}, dq, dk);
    });
}

}  // namespace

void recurrence_backward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                         const TensorView& states, const RecurrenceOutputs& outputs,
                         const TensorView& dout, const TensorView& d_end,
                         const RecurrenceGradients& gradients, const TensorView& d_states,
                         const TensorView& workspace, const Poll& poll) {
  Carver carver(workspace.kernel_bytes());
  const SharedScratch shared(carver, shape);
  const std::int64_t num_states = shape.num_sequences * shape.num_heads;
  const std::int64_t parts = parts_of_group(shape), size = shape.length() * shape.key_width;
  const std::int64_t heads = shape.num_heads / shape.num_groups / parts;
  const BackwardTask task{shape, inputs, outputs, dout, gradients, shared.dskip};
  std::fill_n(task.dskip, num_states, 0.0);
  for_heads(
      heads, shape, workspace, poll,
      [&](std::int64_t sequence, std::int64_t first, std::int64_t end,
          const ChunkScratch& of_thread) {
        ChunkScratch s = of_thread;
        const bool shares = shape.num_heads > shape.num_groups;
        if (parts > 1) {
          const std::int64_t part = (sequence * shape.num_heads + first) / heads;
          s.group_dq = shared.parts_dq + part * size;
          s.group_dk = shared.parts_dk + part * size;
        }
        if (shares) {
          std::fill_n(s.group_dq, size, 0.0f);
          std::fill_n(s.group_dk, size, 0.0f);
        }
        for (std::int64_t head = first; head < end; ++head)
          differentiate_head(task, states, d_end, d_states, sequence, head, s);
        if (shares && parts == 1)
          store_keys(task, sequence, first / heads, {0, shape.length()}, s.group_dq, s.group_dk);
      });
  if (parts > 1) store_parts(task, shared);
  if (gradients.dskip.empty()) return;
  for (std::int64_t i = 0; i < num_states; ++i)
    gradients.dskip.as<float>()[i % shape.num_heads] += static_cast<float>(task.dskip[i]);
}

void recurrence_summary_gradients(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                                  const RecurrenceOutputs& outputs, const TensorView& dout,
                                  const TensorView& d_states, const TensorView& workspace,
                                  const Poll& poll) {
  for_each_head(
      shape, workspace, poll,
      [&](std::int64_t sequence, std::int64_t head, std::int64_t end, const ChunkScratch& s) {
        const std::vector<Span> spans = spans_of(shape, sequence);
        for (; head < end; ++head)
          for (std::size_t i = 0; i < spans.size(); ++i) {
            if (i > 0 && spans[i - 1].run == spans[i].run) continue;
            float* const d_state = block_of(shape, d_states, spans[i].run, sequence, head);
            std::fill_n(d_state, shape.state_size(), 0.0f);
            if (spans[i].begins) continue;
            for_each_chunk_backwards(shape, spans[i],
                                     [&](std::int64_t, std::int64_t row, std::int64_t count) {
                                       Chunk chunk(shape, inputs, head, s);
                                       chunk.load_keys(row, count);
                                       chunk.load_queries();
                                       chunk.make_lower();
                                       if (shape.delta) chunk.make_pairs();
                                       load_dout(shape, outputs, dout, head, row, count, s);
                                       chunk.retreat(d_state);
                                     });
          }
      });
}

}  // namespace switchyard::kernels::cpu
