// The CPU twins of kernels/rows/elementwise.hpp, dropout excepted.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void fill_zero(const TensorView& x);
void iota(const TensorView& x);
void copy(const TensorView& src, const TensorView& dst);
void add(const TensorView& a, const TensorView& b, const TensorView& out);
void scale(const TensorView& x, float factor);

// On `n` elements in a run, by one thread.
void convert_span(const float* from, BFloat16* to, std::int64_t n);
void convert_span(const BFloat16* from, float* to, std::int64_t n);
void accumulate_span(float* sum, const float* x, std::int64_t n);
void accumulate_span(float* sum, const BFloat16* x, std::int64_t n);

}  // namespace switchyard::kernels::cpu
