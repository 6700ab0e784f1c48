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

template <class Each>
void with_rows(const TensorView& view, Each&& each) {
  if (view.dtype == DType::f32)
    each(rows_of<float>(view));
  else
    each(rows_of<BFloat16>(view));
}

void store_block(const float* block, std::int64_t count, std::int64_t cols, float factor,
                 const TensorView& to, std::int64_t row, std::int64_t begin) {
  with_rows(to, [&](auto rows) {
    for (std::int64_t i = 0; i < count; ++i)
      store_row(block + i * cols, cols, factor, rows[row + i] + begin);
  });
}

// dq and dk of a chunk, to the tensors, or to the sums over the heads that share keys.
void give_keys(const BackwardTask& task, std::int64_t sequence, const Chunk& chunk,
               const ChunkScratch& s) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t keys = shape.key_width, numel = chunk.count() * keys;
  if (shape.delta)
    for (std::int64_t i = 0; i < numel; ++i) s.dk[i] += s.dk_add[i];
  if (shape.num_heads == shape.num_groups) {
    const std::int64_t begin = chunk.group() * keys;
    store_block(s.dq, chunk.count(), keys, shape.scale, task.gradients.dq, chunk.row(), begin);
    store_block(s.dk, chunk.count(), keys, 1, task.gradients.dk, chunk.row(), begin);
    return;
  }
  const std::int64_t first = (chunk.row() - sequence * shape.length()) * keys;
  for (std::int64_t i = 0; i < numel; ++i) {
    s.group_dq[first + i] += s.dq[i];
    s.group_dk[first + i] += s.dk[i];
  }
}

// dv, and what follows from it: that of the steps and of the skip.
void give_values(const BackwardTask& task, std::int64_t sequence, std::int64_t head,
                 const Chunk& chunk, const ChunkScratch& s) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t width = shape.value_width, w = shape.state_cols();
  const bool skips = !task.inputs.skip.empty();
  const float skip = skips ? task.inputs.skip.as<float>()[head] : 0;
  for (std::int64_t i = 0; i < chunk.count(); ++i) {
    const std::int64_t row = chunk.row() + i;
    const float* dv = chunk.dv() + i * w;
    const float* raw = s.raw_v + i * width;
    float step = 1;
    if (!task.inputs.steps.empty()) {
      step = rows_of<float>(task.inputs.steps)[row][head];
      rows_of<float>(task.gradients.dsteps)[row][head] = dot(dv, raw, width);
    }
    const float* dout = s.dout + i * w;
    float* const to = s.by_values;
    for (std::int64_t c = 0; c < width; ++c) to[c] = step * dv[c] + skip * dout[c];
    if (skips)
      task.dskip[sequence * shape.num_heads + head] += static_cast<double>(dot(dout, raw, width));
    store_block(to, 1, width, 1, task.gradients.dv, row, head * width);
  }
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

// Chunks of a span, the last first: the states before each are made first.
void differentiate_span(const BackwardTask& task, const Span& span, std::int64_t sequence,
                        std::int64_t head, const ChunkScratch& s) {
  const RecurrenceShape& shape = task.shape;
  const std::int64_t size = shape.state_size();
  float* next = s.states;
  for_each_chunk(shape, span, [&](std::int64_t row, std::int64_t count) {
    Chunk chunk(shape, task.inputs, head, s);
    chunk.load_keys(row, count);
    chunk.load_values();
    chunk.make_lower();
    next += size;
    std::copy_n(next - size, size, next);
    chunk.advance(next);
  });
  for_each_chunk_backwards(shape, span, [&](std::int64_t i, std::int64_t row, std::int64_t count) {
    const float* state = s.states + i * size;
    Chunk chunk(shape, task.inputs, head, s);
    chunk.load_keys(row, count);
    chunk.load_queries();
    chunk.load_values();
    chunk.make_lower();
    chunk.make_pairs();
    load_dout(shape, task.outputs, task.dout, head, row, count, s);
    if (shape.delta) {  // U once more
      std::copy_n(state, size, s.state);
      chunk.advance(s.state);
    }
    chunk.differentiate(state, state + size, s.d_state);
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

void recurrence_backward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                         const TensorView& states, const RecurrenceOutputs& outputs,
                         const TensorView& dout, const TensorView& d_end,
                         const RecurrenceGradients& gradients, const TensorView& d_states,
                         const TensorView& workspace, const Poll& poll) {
  Carver shared(workspace.kernel_bytes());
  const std::int64_t num_states = shape.num_sequences * shape.num_heads;
  const BackwardTask task{shape, inputs, outputs, dout, gradients, shared.take<double>(num_states)};
  std::fill_n(task.dskip, num_states, 0.0);
  for_each_group(
      shape, workspace, poll,
      [&](std::int64_t sequence, std::int64_t first, std::int64_t end, const ChunkScratch& s) {
        const std::int64_t keys = shape.key_width;
        const std::int64_t numel = shape.length() * keys;
        const bool shares = shape.num_heads > shape.num_groups;
        if (shares) {
          std::fill_n(s.group_dq, numel, 0.0f);
          std::fill_n(s.group_dk, numel, 0.0f);
        }
        for (std::int64_t head = first; head < end; ++head)
          differentiate_head(task, states, d_end, d_states, sequence, head, s);
        if (!shares) return;
        const std::int64_t row = sequence * shape.length();
        const std::int64_t begin = first / (end - first) * keys;
        store_block(s.group_dq, shape.length(), keys, shape.scale, gradients.dq, row, begin);
        store_block(s.group_dk, shape.length(), keys, 1, gradients.dk, row, begin);
      });
  if (gradients.dskip.empty()) return;
  for (std::int64_t i = 0; i < num_states; ++i)
    gradients.dskip.as<float>()[i % shape.num_heads] += static_cast<float>(task.dskip[i]);
}

void recurrence_summary_gradients(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                                  const RecurrenceOutputs& outputs, const TensorView& dout,
                                  const TensorView& d_states, const TensorView& workspace,
                                  const Poll& poll) {
  for_each_group(
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
