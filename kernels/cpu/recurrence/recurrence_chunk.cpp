#include "kernels/cpu/recurrence/recurrence_chunk.hpp"

#include <algorithm>
#include <type_traits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/recurrence_rows.hpp"

namespace switchyard::kernels::cpu {

namespace {

// No chunk has more rows.
std::int64_t most_rows(const RecurrenceShape& shape) {
  return std::clamp<std::int64_t>(shape.length(), 1, shape.chunk);
}

// move(a view's rows of their type)
template <class Move>
void with_rows(const TensorView& view, Move&& move) {
  if (view.dtype == DType::f32)
    move(rows_of<float>(view));
  else
    move(rows_of<BFloat16>(view));
}

}  // namespace

void load_block(const TensorView& from, const BlockPlace& place, float factor, float* block,
                std::int64_t step) {
  with_rows(from, [&](auto rows) {
    using Element = std::remove_pointer_t<decltype(rows.data)>;
    convert_block(RowsBetween<Element, float>{.from = rows[place.row] + place.begin,
                                              .from_step = rows.stride,
                                              .to = block,
                                              .to_step = step,
                                              .count = place.count,
                                              .cols = place.cols,
                                              .factor = factor});
  });
}

void store_block(const float* block, std::int64_t step, float factor, const TensorView& to,
                 const BlockPlace& place) {
  with_rows(to, [&](auto rows) {
    using Element = std::remove_pointer_t<decltype(rows.data)>;
    convert_block(RowsBetween<float, Element>{.from = block,
                                              .from_step = step,
                                              .to = rows[place.row] + place.begin,
                                              .to_step = rows.stride,
                                              .count = place.count,
                                              .cols = place.cols,
                                              .factor = factor});
  });
}

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

std::int64_t parts_of_group(const RecurrenceShape& shape) {
  constexpr std::int64_t wanted_pieces = 4;
  const std::int64_t heads = shape.num_heads / shape.num_groups;
  const std::int64_t pieces = std::max<std::int64_t>(1, shape.num_sequences * shape.num_groups);
  std::int64_t parts = std::clamp<std::int64_t>(wanted_pieces / pieces, 1, heads);
  while (heads % parts != 0) --parts;
  return parts;
}

ChunkScratch::ChunkScratch(Carver& carver, const RecurrenceShape& shape) {
  const std::int64_t n = most_rows(shape), keys = shape.key_width, w = shape.state_cols();
  const auto rows_of_keys = [&] { return carver.take<float>(n * keys); };
  const auto rows_of_values = [&] { return carver.take<float>(n * w); };
  q = rows_of_keys();
  k = rows_of_keys();
  k_turned = rows_of_keys();
  v = rows_of_values();
  raw_v = rows_of_values();
  steps = carver.take<float>(n);
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
  u_turned = rows_of_values();
  state_turned = carver.take<float>(keys * w);
  d_state_turned = carver.take<float>(keys * w);
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
  by_token = carver.take<float>(n);
  more_by_token = carver.take<float>(n);
  of_reading = carver.take<float>(n);
  of_writing = carver.take<float>(n);
  state = carver.take<float>(keys * std::max(keys, w));
  d_state = carver.take<float>(keys * w);
  const bool adds_up = shape.num_heads > shape.num_groups && parts_of_group(shape) == 1;
  const std::int64_t shared = adds_up ? shape.length() * keys : 0;
  group_dq = carver.take<float>(shared);
  group_dk = carver.take<float>(shared);
  const std::int64_t chunks = (shape.length() + shape.chunk - 1) / shape.chunk + 1;
  states = carver.take<float>((chunks + 1) * keys * w);
  const std::int64_t kept_rows = shape.delta ? shape.length() * w : 0;
  kept_x = carver.take<float>(kept_rows);
  kept_u = carver.take<float>(kept_rows);
  kept_lower = carver.take<float>(shape.delta ? chunks * square : 0);
}

ChunkScratch ChunkScratch::of_chunk(const RecurrenceShape& shape, std::int64_t row,
                                    std::int64_t number) const {
  ChunkScratch own = *this;
  if (!shape.delta) return own;
  const std::int64_t n = most_rows(shape);
  own.x = kept_x + row * shape.state_cols();
  own.u = kept_u + row * shape.state_cols();
  own.lower = kept_lower + number * n * n;
  return own;
}

std::int64_t ChunkScratch::bytes(const RecurrenceShape& shape) {
  Carver carver(nullptr);
  const ChunkScratch counted(carver, shape);
  return carver.bytes_from_null();
}

void Chunk::product(std::int64_t m, std::int64_t cols, std::int64_t k, const float* a,
                    const float* b, float* c, Factors factors) const {
  multiply_blocks({.m = m,
                   .n = cols,
                   .k = k,
                   .lda = factors.a_transposed ? m : k,
                   .ldb = cols,
                   .ldc = cols,
                   .a_transposed = factors.a_transposed,
                   .into = factors.into,
                   .triangle = factors.triangle},
                  a, b, c);
}

void Chunk::load_keys(std::int64_t row, std::int64_t count) {
  row_ = row;
  n_ = count;
  has_turned_keys_ = false;
  const std::int64_t keys = shape_.key_width;
  load_block(inputs_.k, {row, n_, group() * keys, keys}, 1, s_.k, keys);
  if (shape_.delta)
    for (std::int64_t i = 0; i < n_; ++i)
      s_.betas[i] = rows_of<float>(inputs_.betas)[row + i][head_];
  if (inputs_.gates.empty()) return;
  const Rows<float> gates = rows_of<float>(inputs_.gates);
  const bool is_constant = inputs_.gates.rows() == 1;
  float sum = 0;
  for (std::int64_t i = 0; i < n_; ++i) {
    sum += gates[is_constant ? 0 : row + i][head_];
    s_.sums[i] = sum;
  }
  gate_factors(s_.sums, n_, s_.grow, s_.fade);
}

const float* Chunk::keys_turned() {
  if (!has_turned_keys_) transpose_block(s_.k, n_, shape_.key_width, s_.k_turned);
  has_turned_keys_ = true;
  return s_.k_turned;
}

void Chunk::load_queries() {
  const std::int64_t keys = shape_.key_width;
  load_block(inputs_.q, {row_, n_, group() * keys, keys}, shape_.scale, s_.q, keys);
}

void Chunk::load_values() {
  const std::int64_t width = shape_.value_width, w = shape_.state_cols();
  const bool has_steps = !inputs_.steps.empty();
  float* const loaded = has_steps || !inputs_.skip.empty() ? s_.raw_v : s_.v;
  load_block(inputs_.v, {row_, n_, head_ * width, width}, 1, loaded, w);
  if (shape_.normalized)
    for (std::int64_t i = 0; i < n_; ++i) loaded[i * w + width] = 0;
  for (std::int64_t i = 0; i < n_; ++i)
    s_.steps[i] = has_steps ? rows_of<float>(inputs_.steps)[row_ + i][head_] : 1.0f;
  if (loaded != s_.v) scaled_rows(loaded, n_, w, s_.steps, s_.v);
  if (shape_.normalized)
    for (std::int64_t i = 0; i < n_; ++i) s_.v[i * w + width] = 1;
}

float Chunk::gate_of_chunk() const {
  return inputs_.gates.empty() ? 1.0f : s_.grow[n_ - 1];
}

void Chunk::make_lower() {
  if (!shape_.delta) return;
  product(n_, n_, shape_.key_width, s_.k, keys_turned(), s_.lower,
          {.triangle = Triangle::lower_result});
  decay_pairs(s_.lower, n_, sums(), true);
  scale_rows(s_.lower, n_, n_, s_.betas);
}

void Chunk::make_pairs() {
  if (shape_.exclusive) return;
  product(n_, n_, shape_.key_width, s_.q, keys_turned(), s_.pairs,
          {.triangle = Triangle::lower_result});
  decay_pairs(s_.pairs, n_, sums(), false);
}

// X and U of the delta rule. v: null for zeros.
void Chunk::prepare_values(const float* state, std::int64_t cols, const float* v, float* x,
                           float* u) {
  product(n_, cols, shape_.key_width, s_.k, state, x, {});
  if (sums() != nullptr) scale_rows(x, n_, cols, s_.grow);
  if (v == nullptr)
    scale_block(x, n_ * cols, -1);
  else
    subtract_from(v, n_ * cols, x);
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
  product(keys, cols, n_, faded, u, state, {.a_transposed = true, .into = Into::add});
}

void Chunk::advance(float* state) {
  correct(state);
  move(state);
}

void Chunk::move(float* state) {
  move_state(state, shape_.state_cols(), shape_.delta ? s_.u : s_.v);
}

void Chunk::correct(const float* state) {
  if (shape_.delta) prepare_values(state, shape_.state_cols(), s_.v, s_.x, s_.u);
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
  product(n_, w, n_, s_.pairs, shape_.delta ? s_.u : s_.v, s_.out,
          {.into = Into::add, .triangle = Triangle::lower_factor});
}

// dU = P^T dO + F (K dS'); with the delta rule then dR, and dX = beta dR.
void Chunk::make_du(const float* d_state) {
  const std::int64_t w = shape_.state_cols();
  product(n_, w, shape_.key_width, s_.k, d_state, s_.du, {});
  if (sums() != nullptr) scale_rows(s_.du, n_, w, s_.fade);
  if (!shape_.exclusive)
    product(n_, w, n_, s_.pairs, s_.dout, s_.du,
            {.a_transposed = true, .into = Into::add, .triangle = Triangle::upper_factor});
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
  product(keys, w, n_, s_.q, seen(s_.dout), d_state, {.a_transposed = true, .into = Into::add});
  if (!shape_.delta) return;
  product(keys, w, n_, s_.k, seen(s_.dx), d_state, {.a_transposed = true, .into = Into::subtract});
}

void Chunk::differentiate(const float* state, float* d_state) {
  const std::int64_t keys = shape_.key_width, w = shape_.state_cols();
  const float* u = shape_.delta ? s_.u : s_.v;
  if (!shape_.delta) make_du(d_state);  // else retreat() makes it below, from the same d_state
  const bool has_gates = sums() != nullptr;
  const float of_state = has_gates ? gate_of_chunk() * dot(state, d_state, keys * w) : 0;
  if (has_gates) std::fill_n(s_.dgates, n_, 0.0f);

  // dq = E (dO S^T) + dP K
  transpose_block(state, keys, w, s_.state_turned);
  product(n_, keys, w, s_.dout, s_.state_turned, s_.dq, {});
  if (has_gates) {
    scale_rows(s_.dq, n_, keys, s_.grow);
    row_dots(s_.q, s_.dq, n_, keys, s_.of_reading);
  }
  if (!shape_.exclusive) {
    transpose_block(u, n_, w, s_.u_turned);
    product(n_, n_, w, s_.dout, s_.u_turned, s_.dpairs, {.triangle = Triangle::lower_result});
    if (has_gates) add_across(s_.dpairs, s_.pairs, 1);
    decay_pairs(s_.dpairs, n_, sums(), false);
    product(n_, keys, n_, s_.dpairs, s_.k, s_.dq,
            {.into = Into::add, .triangle = Triangle::lower_factor});
  }
  // dk = F (U dS'^T) + dP^T Q ...
  transpose_block(d_state, keys, w, s_.d_state_turned);
  product(n_, keys, w, u, s_.d_state_turned, s_.dk, {});
  if (has_gates) {
    scale_rows(s_.dk, n_, keys, s_.fade);
    row_dots(s_.k, s_.dk, n_, keys, s_.of_writing);
  }
  if (!shape_.exclusive)
    product(n_, keys, n_, s_.dpairs, s_.q, s_.dk,
            {.a_transposed = true, .into = Into::add, .triangle = Triangle::upper_factor});

  retreat(d_state);
  if (shape_.delta) {
    // dM D = -(dR U^T) D, strictly lower; N = beta dM D
    product(n_, n_, w, s_.du, s_.u_turned, s_.dlower, {.triangle = Triangle::lower_result});
    if (has_gates) add_across(s_.dlower, s_.lower, -1);
    decay_pairs(s_.dlower, n_, sums(), true);
    scale_block(s_.dlower, n_ * n_, -1);
    product(n_, keys, n_, s_.dlower, s_.k, s_.dk_add, {.triangle = Triangle::lower_factor});
    row_dots(s_.du, s_.x, n_, w, s_.dbetas);
    row_dots(s_.k, s_.dk_add, n_, keys, s_.by_token);
    for (std::int64_t i = 0; i < n_; ++i) s_.dbetas[i] += s_.by_token[i];
    // ... + N^T K, and N K - E (dX S^T)
    scaled_rows(s_.k, n_, keys, s_.betas, s_.by_keys);
    product(n_, keys, n_, s_.dlower, s_.by_keys, s_.dk,
            {.a_transposed = true, .into = Into::add, .triangle = Triangle::upper_factor});
    scale_rows(s_.dk_add, n_, keys, s_.betas);
    product(n_, keys, w, s_.dx, s_.state_turned, s_.by_keys, {});
    if (has_gates) {
      scale_rows(s_.by_keys, n_, keys, s_.grow);
      row_dots(s_.k, s_.by_keys, n_, keys, s_.by_token);
      for (std::int64_t i = 0; i < n_; ++i) s_.of_reading[i] -= s_.by_token[i];
    }
    subtract_block(s_.dk_add, s_.by_keys, n_ * keys);
  }
  if (has_gates) finish_gates(of_state);
}

// To dgates: what goes from earlier tokens to this one and later ones through its gate. dpairs:
// before they decay; pairs: decayed.
void Chunk::add_across(const float* dpairs, const float* pairs, float factor) {
  sums_across(dpairs, pairs, n_, s_.by_token, s_.more_by_token);
  for (std::int64_t i = 0; i < n_; ++i) s_.dgates[i] += factor * s_.more_by_token[i];
}

// ... and through it what tokens from this one on read of the state before the chunk, what earlier
// tokens write to the state behind it, and that of the one in the other. Sums of what passes the
// gate alone: q . dq - k . dk, from the last token on, has all pairs behind it in both terms.
void Chunk::finish_gates(float of_state) {
  double passing = static_cast<double>(of_state);  // through the gate of the token at hand
  for (std::int64_t i = 0; i < n_; ++i) passing += static_cast<double>(s_.of_writing[i]);
  for (std::int64_t i = n_; i-- > 0;) {
    passing -= static_cast<double>(s_.of_writing[i]);
    passing += static_cast<double>(s_.of_reading[i]);
    s_.dgates[i] = static_cast<float>(static_cast<double>(s_.dgates[i]) + passing);
  }
}

}  // namespace switchyard::kernels::cpu
