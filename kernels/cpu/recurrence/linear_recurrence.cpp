#include "kernels/cpu/recurrence/linear_recurrence.hpp"

#include <algorithm>

#include "kernels/cpu/recurrence/recurrence_pieces.hpp"

namespace switchyard::kernels::cpu {

namespace {

// A mean over nothing is 0.
float mean_factor(float denominator) {
  return denominator == 0 ? 0 : 1 / denominator;
}

// O to the tensors: divided by the column of ones' share, with the skipped values.
void write_out(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
               const RecurrenceOutputs& outputs, std::int64_t head, const Chunk& chunk,
               const ChunkScratch& s) {
  const std::int64_t width = shape.value_width, w = shape.state_cols(), count = chunk.count();
  if (!inputs.skip.empty())
    subtract_block(s.out, s.raw_v, count * w, -inputs.skip.as<float>()[head]);
  if (shape.normalized) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float denominator = s.out[i * w + width];
      rows_of<float>(outputs.denominators)[chunk.row() + i][head] = denominator;
      s.by_token[i] = mean_factor(denominator);
    }
    scale_rows(s.out, count, w, s.by_token);
  }
  store_block(s.out, w, 1, outputs.out, {chunk.row(), count, head * width, width});
}

// T of one run: what it makes of any state before it. 0 where a document begins inside.
void write_transition(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                      const Span& span, bool passes, std::int64_t head, const ChunkScratch& s,
                      float* transition) {
  std::fill_n(transition, shape.transition_size(), 0.0f);
  if (!passes) return;
  const std::int64_t keys = shape.key_width;
  if (shape.delta) {
    for (std::int64_t i = 0; i < keys; ++i) transition[i * keys + i] = 1;
  } else {
    *transition = 1;
  }
  for_each_chunk(shape, span, [&](std::int64_t row, std::int64_t count) {
    Chunk chunk(shape, inputs, head, s);
    chunk.load_keys(row, count);
    if (shape.delta) {
      chunk.make_lower();
      chunk.advance_transition(transition);
    } else {
      *transition *= chunk.gate_of_chunk();
    }
  });
}

bool is_last_of_run(const std::vector<Span>& spans, std::size_t i) {
  return i + 1 == spans.size() || spans[i + 1].run != spans[i].run;
}

bool is_first_of_run(const std::vector<Span>& spans, std::size_t i) {
  return i == 0 || spans[i - 1].run != spans[i].run;
}

// to [d_k, w] += T from, or T^T from.
void add_moved(const RecurrenceShape& shape, const float* transition, const float* from,
               bool transposed, float* to) {
  const std::int64_t keys = shape.key_width, w = shape.state_cols();
  if (!shape.delta) {
    for (std::int64_t i = 0; i < keys * w; ++i) to[i] += *transition * from[i];
    return;
  }
  for (std::int64_t i = 0; i < keys; ++i)
    for (std::int64_t j = 0; j < keys; ++j) {
      const float factor = transposed ? transition[j * keys + i] : transition[i * keys + j];
      for (std::int64_t c = 0; c < w; ++c) to[i * w + c] += factor * from[j * w + c];
    }
}

}  // namespace

void load_dout(const RecurrenceShape& shape, const RecurrenceOutputs& outputs,
               const TensorView& dout, std::int64_t head, std::int64_t row, std::int64_t count,
               const ChunkScratch& s) {
  const std::int64_t width = shape.value_width, w = shape.state_cols();
  load_block(dout, {row, count, head * width, width}, 1, s.dout, w);
  if (!shape.normalized) return;
  // out = numerator / denominator
  load_block(outputs.out, {row, count, head * width, width}, 1, s.by_values, w);
  for (std::int64_t i = 0; i < count; ++i) {
    float* const to = s.dout + i * w;
    const float inverse = mean_factor(rows_of<float>(outputs.denominators)[row + i][head]);
    to[width] = -dot(to, s.by_values + i * w, width);
    s.by_token[i] = inverse;
  }
  scale_rows(s.dout, count, w, s.by_token);
}

void recurrence_forward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                        const TensorView& states, const RecurrenceOutputs& outputs,
                        const TensorView& states_end, const TensorView& workspace,
                        const Poll& poll) {
  for_each_head(
      shape, workspace, poll,
      [&](std::int64_t sequence, std::int64_t head, std::int64_t end, const ChunkScratch& s) {
        const std::vector<Span> spans = spans_of(shape, sequence);
        for (; head < end; ++head)
          for (std::size_t i = 0; i < spans.size(); ++i) {
            begin_state(shape, states, spans[i], sequence, head, s.state);
            for_each_chunk(shape, spans[i], [&](std::int64_t row, std::int64_t count) {
              Chunk chunk(shape, inputs, head, s);
              chunk.load_keys(row, count);
              chunk.load_queries();
              chunk.load_values();
              chunk.make_lower();
              chunk.make_pairs();
              chunk.correct(s.state);
              chunk.read(s.state);
              chunk.move(s.state);
              write_out(shape, inputs, outputs, head, chunk, s);
            });
            if (!states_end.empty() && is_last_of_run(spans, i))
              std::copy_n(s.state, shape.state_size(),
                          block_of(shape, states_end, spans[i].run, sequence, head));
          }
      });
}

void recurrence_summaries(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                          const TensorView& summaries, const TensorView& workspace,
                          const Poll& poll) {
  for_each_head(
      shape, workspace, poll,
      [&](std::int64_t sequence, std::int64_t head, std::int64_t end, const ChunkScratch& s) {
        const std::vector<Span> spans = spans_of(shape, sequence);
        for (; head < end; ++head)
          for (std::size_t i = 0; i < spans.size(); ++i) {
            if (!is_last_of_run(spans, i)) continue;
            float* const state = block_of(shape, summaries, spans[i].run, sequence, head);
            std::fill_n(state, shape.state_size(), 0.0f);
            for_each_chunk(shape, spans[i], [&](std::int64_t row, std::int64_t count) {
              Chunk chunk(shape, inputs, head, s);
              chunk.load_keys(row, count);
              chunk.load_values();
              chunk.make_lower();
              chunk.advance(state);
            });
            const bool passes = is_first_of_run(spans, i) && !spans[i].begins;
            write_transition(shape, inputs, spans[i], passes, head, s, state + shape.state_size());
          }
      });
}

void recurrence_fold(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                     const TensorView& maps, const TensorView& states) {
  const std::int64_t num_states = shape.num_sequences * shape.num_heads;
  const std::int64_t size = shape.state_size();
  for_each_piece(num_states, [&](std::int64_t i, int) {
    // The state before a run stands where it is wanted, or in the block of the run before here.
    std::vector<float> state(static_cast<std::size_t>(size), 0.0f), next(state);
    for (const RunPlace& run : runs) {
      if (run.here >= 0)
        std::copy(state.begin(), state.end(), rows_of<float>(states)[run.here * num_states + i]);
      const float* map = rows_of<float>(maps)[run.row * num_states + i];
      std::copy_n(map, size, next.begin());
      add_moved(shape, map + size, state.data(), false, next.data());
      state.swap(next);
    }
  });
}

void recurrence_fold_backward(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                              const TensorView& gradients, const TensorView& transitions,
                              const TensorView& d_end) {
  const std::int64_t num_states = shape.num_sequences * shape.num_heads;
  const std::int64_t size = shape.state_size();
  for_each_piece(num_states, [&](std::int64_t i, int) {
    std::vector<float> d_state(static_cast<std::size_t>(size), 0.0f), next(d_state);
    for (std::size_t r = runs.size(); r-- > 0;) {
      if (runs[r].here >= 0)
        std::copy(d_state.begin(), d_state.end(),
                  rows_of<float>(d_end)[runs[r].here * num_states + i]);
      std::copy_n(rows_of<float>(gradients)[runs[r].row * num_states + i], size, next.begin());
      add_moved(shape, rows_of<float>(transitions)[runs[r].row * num_states + i], d_state.data(),
                true, next.data());
      d_state.swap(next);
    }
  });
}

std::int64_t recurrence_workspace_bytes(const RecurrenceShape& shape, int num_threads) {
  return recurrence_shared_bytes(shape) + ChunkScratch::bytes(shape) * num_threads;
}

}  // namespace switchyard::kernels::cpu
