#include "kernels/cpu/recurrence/recurrence_chunk.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/recurrence_rows.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr std::int64_t row_padding = 16;

std::int64_t padded(std::int64_t n) {
  return (n + row_padding - 1) / row_padding * row_padding;
}

// No chunk has more rows.
std::int64_t most_rows(const RecurrenceShape& shape) {
  return padded(std::clamp<std::int64_t>(shape.length(), 1, shape.chunk));
}

const std::byte* bytes_of(const float* values) {
  return reinterpret_cast<const std::byte*>(values);
}

// Columns begin ... begin + cols - 1 of consecutive rows, as a dense block.
void load_block(const TensorView& from, std::int64_t row, std::int64_t count, std::int64_t begin,
                std::int64_t cols, float factor, float* to) {
  const auto load = [&](auto rows) {
    for (std::int64_t i = 0; i < count; ++i)
      load_row(rows[row + i] + begin, cols, factor, to + i * cols);
  };
  if (from.dtype == DType::f32)
    load(rows_of<float>(from));
  else
    load(rows_of<BFloat16>(from));
}

}  // namespace

std::vector<Span> spans_of(const RecurrenceShape& shape, std::int64_t sequence) {
  std::vector<Span> spans;
  std::int64_t row = sequence * shape.length();
  for (std::int64_t run = 0; run < shape.num_runs(); ++run) {
    const PositionRange& range = shape.runs[static_cast<std::size_t>(run)];
    Span span{.run = run, .row = row, .count = 0, .position = range.begin, .begins = false};
    if (!shape.document_starts.empty())
      for (const std::int32_t start : shape.document_starts[static_cast<std::size_t>(sequence)]) {
        if (start < range.begin || start >= range.end()) continue;
        const std::int64_t at = row + start - range.begin;
        span.count = at - span.row;
        if (span.count > 0) spans.push_back(span);
        span = {.run = run, .row = at, .count = 0, .position = start, .begins = true};
      }
    span.count = row + range.count - span.row;
    spans.push_back(span);
    row += range.count;
  }
  return spans;
}

ChunkScratch::ChunkScratch(Carver& carver, const RecurrenceShape& shape) {
  const std::int64_t n = most_rows(shape), keys = shape.key_width, w = shape.state_cols();
  const auto rows_of_keys = [&] { return carver.take<float>(n * keys); };
  const auto rows_of_values = [&] { return carver.take<float>(n * w); };
  q = rows_of_keys();
  k = rows_of_keys();
  raw_v = carver.take<float>(n * shape.value_width);
  v = rows_of_values();
  sums = carver.take<float>(n);
  grow = carver.take<float>(n);
  fade = carver.take<float>(n);
  betas = carver.take<float>(n);
  const std::int64_t square = shape.exclusive ? 0 : n * n;
  pairs = carver.take<float>(square);
  lower = carver.take<float>(square);
  x = rows_of_values();
  u = rows_of_values();
  out = rows_of_values();
  faded = carver.take<float>(n * std::max(keys, w));
  dout = rows_of_values();
  du = rows_of_values();
  dx = rows_of_values();
  dpairs = carver.take<float>(square);
  dlower = carver.take<float>(square);
  dq = rows_of_keys();
  dk = rows_of_keys();
  dk_add = rows_of_keys();
  by_keys = rows_of_keys();
  by_values = rows_of_values();
  wide = rows_of_keys();
  dgates = carver.take<float>(n);
  dbetas = carver.take<float>(n);
  state = carver.take<float>(keys * std::max(keys, w));
  d_state = carver.take<float>(keys * w);
  const std::int64_t shared = shape.num_heads > shape.num_groups ? shape.length() * keys : 0;
  group_dq = carver.take<float>(shared);
  group_dk = carver.take<float>(shared);
  const std::int64_t chunks = (shape.length() + shape.chunk - 1) / shape.chunk + 1;
  states = carver.take<float>((chunks + 1) * keys * w);
  scratchpad = carver.take<std::byte>(scratchpad_bytes);
}

std::int64_t ChunkScratch::bytes(const RecurrenceShape& shape) {
  Carver carver(nullptr);
  const ChunkScratch counted(carver, shape);
  return carver.bytes_from_null();
}

void Chunk::product(std::int64_t m, std::int64_t cols, std::int64_t k, const float* a,
                    const float* b, float* c, Factors factors) const {
  multiply({.m = m,
            .n = cols,
            .k = k,
            .lda = factors.a_transposed ? m : k,
            .ldb = factors.b_transposed ? k : cols,
            .ldc = cols,
            .a_transposed = factors.a_transposed,
            .b_transposed = factors.b_transposed,
            .accumulate = factors.accumulate},
           bytes_of(a), bytes_of(b), reinterpret_cast<std::byte*>(c), s_.scratchpad);
}

void Chunk::load_keys(std::int64_t row, std::int64_t count) {
  row_ = row;
  count_ = count;
  n_ = padded(count);
  const std::int64_t keys = shape_.key_width;
  load_block(inputs_.k, row, count, group() * keys, keys, 1, s_.k);
  std::fill(s_.k + count * keys, s_.k + n_ * keys, 0.0f);
  if (shape_.delta) {
    for (std::int64_t i = 0; i < count; ++i)
      s_.betas[i] = rows_of<float>(inputs_.betas)[row + i][head_];
    std::fill(s_.betas + count, s_.betas + n_, 0.0f);
  }
  if (inputs_.gates.empty()) return;
  const Rows<float> gates = rows_of<float>(inputs_.gates);
  const bool is_constant = inputs_.gates.rows() == 1;
  float sum = 0;
  for (std::int64_t i = 0; i < n_; ++i) {
    if (i < count) sum += gates[is_constant ? 0 : row + i][head_];
    s_.sums[i] = sum;
    s_.grow[i] = std::exp(sum);
  }
  for (std::int64_t i = 0; i < n_; ++i) s_.fade[i] = std::exp(sum - s_.sums[i]);
}

void Chunk::load_queries() {
  const std::int64_t keys = shape_.key_width;
  load_block(inputs_.q, row_, count_, group() * keys, keys, shape_.scale, s_.q);
  std::fill(s_.q + count_ * keys, s_.q + n_ * keys, 0.0f);
}

void Chunk::load_values() {
  const std::int64_t width = shape_.value_width, w = shape_.state_cols();
  load_block(inputs_.v, row_, count_, head_ * width, width, 1, s_.raw_v);
  for (std::int64_t i = 0; i < count_; ++i) {
    const float step =
        inputs_.steps.empty() ? 1.0f : rows_of<float>(inputs_.steps)[row_ + i][head_];
    load_row(s_.raw_v + i * width, width, step, s_.v + i * w);
    if (shape_.normalized) s_.v[i * w + width] = 1;
  }
  std::fill(s_.v + count_ * w, s_.v + n_ * w, 0.0f);
}

float Chunk::gate_of_chunk() const {
  return inputs_.gates.empty() ? 1.0f : s_.grow[n_ - 1];
}

void Chunk::make_lower() {
  if (!shape_.delta) return;
  product(n_, n_, shape_.key_width, s_.k, s_.k, s_.lower, {.b_transposed = true});
  decay_pairs(s_.lower, n_, sums(), true);
  scale_rows(s_.lower, n_, n_, s_.betas);
}

void Chunk::make_pairs() {
  if (shape_.exclusive) return;
  product(n_, n_, shape_.key_width, s_.q, s_.k, s_.pairs, {.b_transposed = true});
  decay_pairs(s_.pairs, n_, sums(), false);
}

// X and U of the delta rule. v: null for zeros.
void Chunk::prepare_values(const float* state, std::int64_t cols, const float* v, float* x,
                           float* u) {
  product(n_, cols, shape_.key_width, s_.k, state, x, {});
  if (sums() != nullptr) scale_rows(x, n_, cols, s_.grow);
  for (std::int64_t i = 0; i < n_ * cols; ++i) x[i] = (v == nullptr ? 0 : v[i]) - x[i];
  scaled_rows(x, n_, cols, s_.betas, u);
  solve_lower(s_.lower, n_, cols, u);
}

// state = e^{G_C} state + (F K)^T u
void Chunk::move_state(float* state, std::int64_t cols, const float* u) {
  const std::int64_t keys = shape_.key_width;
  const float* faded = s_.k;
  if (sums() != nullptr) {
    scale_block(state, keys * cols, gate_of_chunk());
    scaled_rows(s_.k, n_, keys, s_.fade, s_.faded);
    faded = s_.faded;
  }
  product(keys, cols, n_, faded, u, state, {.a_transposed = true, .accumulate = true});
}

void Chunk::advance(float* state) {
  const std::int64_t w = shape_.state_cols();
  if (shape_.delta) prepare_values(state, w, s_.v, s_.x, s_.u);
  move_state(state, w, shape_.delta ? s_.u : s_.v);
}

void Chunk::advance_transition(float* state) {
  prepare_values(state, shape_.key_width, nullptr, s_.by_keys, s_.wide);
  move_state(state, shape_.key_width, s_.wide);
}

void Chunk::read(const float* state) {
  const std::int64_t w = shape_.state_cols();
  product(n_, w, shape_.key_width, s_.q, state, s_.out, {});
  if (sums() != nullptr) scale_rows(s_.out, n_, w, s_.grow);
  if (shape_.exclusive) return;
  product(n_, w, n_, s_.pairs, shape_.delta ? s_.u : s_.v, s_.out, {.accumulate = true});
}

// dU = P^T dO + F (K dS'); with the delta rule then dR, and dX = beta dR.
void Chunk::make_du(const float* d_state) {
  const std::int64_t w = shape_.state_cols();
  product(n_, w, shape_.key_width, s_.k, d_state, s_.du, {});
  if (sums() != nullptr) scale_rows(s_.du, n_, w, s_.fade);
  if (!shape_.exclusive)
    product(n_, w, n_, s_.pairs, s_.dout, s_.du, {.a_transposed = true, .accumulate = true});
  if (!shape_.delta) return;
  solve_transposed(s_.lower, n_, w, s_.du);
  scaled_rows(s_.du, n_, w, s_.betas, s_.dx);
}

void Chunk::retreat(float* d_state) {
  const std::int64_t keys = shape_.key_width, w = shape_.state_cols();
  if (shape_.delta) make_du(d_state);
  if (sums() != nullptr) scale_block(d_state, keys * w, gate_of_chunk());
  // Rows of dout and dX as the state before the chunk sees them.
  const auto seen = [&](const float* rows) -> const float* {
    if (sums() == nullptr) return rows;
    scaled_rows(rows, n_, w, s_.grow, s_.faded);
    return s_.faded;
  };
  product(keys, w, n_, s_.q, seen(s_.dout), d_state, {.a_transposed = true, .accumulate = true});
  if (!shape_.delta) return;
  product(keys, w, n_, s_.k, seen(s_.dx), s_.state, {.a_transposed = true});
  subtract_block(d_state, s_.state, keys * w);
}

void Chunk::differentiate(const float* state, const float* state_end, float* d_state) {
  const std::int64_t keys = shape_.key_width, w = shape_.state_cols();
  const float* u = shape_.delta ? s_.u : s_.v;
  if (!shape_.delta) make_du(d_state);  // else retreat() makes it below, from the same d_state
  const float gate_of_end = dot(state_end, d_state, keys * w);

  // dq = E (dO S^T) + dP K
  product(n_, keys, w, s_.dout, state, s_.dq, {.b_transposed = true});
  if (sums() != nullptr) scale_rows(s_.dq, n_, keys, s_.grow);
  if (!shape_.exclusive) {
    product(n_, n_, w, s_.dout, u, s_.dpairs, {.b_transposed = true});
    decay_pairs(s_.dpairs, n_, sums(), false);
    product(n_, keys, n_, s_.dpairs, s_.k, s_.dq, {.accumulate = true});
  }
  // dk = F (U dS'^T) + dP^T Q ...
  product(n_, keys, w, u, d_state, s_.dk, {.b_transposed = true});
  if (sums() != nullptr) scale_rows(s_.dk, n_, keys, s_.fade);
  if (!shape_.exclusive)
    product(n_, keys, n_, s_.dpairs, s_.q, s_.dk, {.a_transposed = true, .accumulate = true});

  retreat(d_state);
  if (shape_.delta) {
    // dM D = -(dR U^T) D, strictly lower; N = beta dM D
    product(n_, n_, w, s_.du, u, s_.dlower, {.b_transposed = true});
    decay_pairs(s_.dlower, n_, sums(), true);
    scale_block(s_.dlower, n_ * n_, -1);
    product(n_, keys, n_, s_.dlower, s_.k, s_.dk_add, {});
    for (std::int64_t i = 0; i < count_; ++i)
      s_.dbetas[i] =
          dot(s_.du + i * w, s_.x + i * w, w) + dot(s_.k + i * keys, s_.dk_add + i * keys, keys);
    // ... + N^T K, and what adds to the gates: N K - E (dX S^T)
    scaled_rows(s_.k, n_, keys, s_.betas, s_.by_keys);
    product(n_, keys, n_, s_.dlower, s_.by_keys, s_.dk, {.a_transposed = true, .accumulate = true});
    scale_rows(s_.dk_add, n_, keys, s_.betas);
    product(n_, keys, w, s_.dx, state, s_.by_keys, {.b_transposed = true});
    if (sums() != nullptr) scale_rows(s_.by_keys, n_, keys, s_.grow);
    subtract_block(s_.dk_add, s_.by_keys, n_ * keys);
  }
  if (sums() == nullptr) return;
  float sum = gate_of_end;  // of the gradients of G_i, from the last on
  for (std::int64_t i = count_; i-- > 0;) {
    const float* key = s_.k + i * keys;
    sum += dot(s_.q + i * keys, s_.dq + i * keys, keys) - dot(key, s_.dk + i * keys, keys);
    if (shape_.delta) sum += dot(key, s_.dk_add + i * keys, keys);
    s_.dgates[i] = sum;
  }
}

}  // namespace switchyard::kernels::cpu
