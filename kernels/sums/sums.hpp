// Sums in double that stay on the device: each is added to a number that lies there, and the host
// reads it when it wants it. Terms are taken in blocks of fixed size, and the blocks in an order
// that the sizes alone decide (on the CPU one after the other): the same bits for any number of
// threads.
#pragma once

#include <array>
#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// into[0] += (sum of values) / divisor. values: f32, rows may be strided; into: f64 [1].
void add_sum(const TensorView& values, double divisor, const TensorView& into);

// into[0] += sum of the squares of all elements, one tensor after the other. tensors: f32, rows may
// be strided, on one device; into: f64 [1].
void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into);

// into[i] += values[i] / divisor. values, into: f64 [n].
void add_quotients(const TensorView& values, double divisor, const TensorView& into);

// Exact sums in double (docs/numerics.md): each term is first rounded to a multiple of a quantum, a
// power of two so large that a double holds every partial sum of all terms of a step. So these sums
// have no order, neither of threads nor of ranks.

// For num_terms terms of at most `most` (not negative), on all ranks and in all micro-steps.
double exact_quantum(double most, double num_terms);

struct ExactTerms {
  double most = 0;  // a larger term, or one that is not finite, makes the sum NaN
  double quantum = 0;
};
// into[0] += sum of values. values: f32 [...], rows may be strided; into: f64 [1].
void add_exact_sum(const TensorView& values, const ExactTerms& terms, const TensorView& into);

// into[i] += part i of the sum of the squares of all elements, whose value is into[0] + (into[1] +
// into[2]). Each square, a double without rounding, is cut in multiples of three quanta, each
// smaller than the one before. tensors: i64 in fixed point (kernels/gradient_sum.hpp), contiguous,
// taken as f32; into: f64 [3].
struct SquareParts {
  // num_elements: of the whole model.
  explicit SquareParts(double num_elements);
  std::array<double, 3> quanta;
  // If into[0] is larger in the end, it is no longer exact.
  static constexpr double most_square = 1.0 * (std::int64_t{1} << 39);
};
void add_exact_sum_of_squares(std::span<const TensorView> tensors, int fraction_bits,
                              const SquareParts& parts, const TensorView& into);

// into[0] += how many of the numbers are not 0. numbers: i32 [n]; into: f64 [1].
void count_nonzero(const TensorView& numbers, const TensorView& into);

}  // namespace switchyard::kernels
