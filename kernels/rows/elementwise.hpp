// Small operations on whole tensors. f32 and bf16 unless said; shapes equal; rows may be strided.
#pragma once

#include "tensor/random.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

void fill_zero(const TensorView& x);                      // any type
void iota(const TensorView& x);                           // i32, contiguous: 0, 1, 2 ...
void copy(const TensorView& src, const TensorView& dst);  // f32 <-> bf16 converts, else same type
void add(const TensorView& a, const TensorView& b, const TensorView& out);  // out may be a or b
void scale(const TensorView& x, float factor);                              // in place, f32

// Dropout by token identity: token t of x belongs to sequence sequence_ids[t / sequence_length]
// and is at its position positions[t]; element h is kept with probability 1 - rate and then divided
// by it. x has `copies` rows per token (the choices of a token): row t * copies + j. The mask is a
// function of (key, step, sequence, position, copy, h) alone, so calling it again on a gradient
// applies the same mask, and no layout changes it.
struct DropoutSite {
  RandomKey key{};
  std::int64_t step = 0;
  std::int64_t sequence_length = 1;  // tokens of each sequence that x has
  TensorView positions{};            // i32 [x.rows() / copies]
  int copies = 1;
};
// sequence_ids: i64 [x.rows() / (sequence_length * copies)]. In place on x [rows, H].
void dropout(const TensorView& x, float rate, const DropoutSite& site,
             const TensorView& sequence_ids);

}  // namespace switchyard::kernels
