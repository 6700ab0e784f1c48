// Where kernels add the gradient of a parameter, and in which way.
//
// f32: terms are added in fp32. Their order follows from the rows at hand, and with them the last
// bits.
// i64: exact mode (docs/numerics.md). The number n stands for n 2^-fraction_bits. Rows come in
// units, whose gradients are computed in fp32 in an order that the unit alone decides; each is
// rounded to a whole number and added. Whole numbers have no order, so neither ranks nor
// micro-steps nor threads change a bit. Integers that wrap round on the way do no harm if the sum
// of all terms fits, so the terms are checked, not the sums: one that is larger than its share, or
// not finite, sets `overflow` and adds nothing.
#pragma once

#include <concepts>

#include "tensor/alike.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct ExactSum {
  int fraction_bits = 48;
  // The largest absolute value that the rows of one unit may add to an element: 2^62
  // 2^-fraction_bits over the units of a step. A kernel that adds a unit in several terms allows
  // each its part.
  double most_of_unit = 0;
  // Rows of a unit. Of operands without offsets the first row is that of a unit, or lies a multiple
  // of term_rows behind it.
  std::int64_t unit_rows = 0;
  TensorView overflow;  // i32 [1]: 1 is written to it
};

// Products sum so many rows of a unit in fp32, counted from its first one.
inline constexpr std::int64_t term_rows = 1024;

struct GradientSum {
  // In fp32. A TensorView, or what becomes one.
  template <class View>
  requires std::convertible_to<const View&, TensorView> GradientSum(const View& f32) : view(f32) {}
  GradientSum(const TensorView& i64, const ExactSum& rule) : view(i64), exact(rule) {}

  TensorView view;
  ExactSum exact;  // of i64

  // Rows of a unit; 0 in fp32.
  std::int64_t unit_rows() const { return is_exact() ? exact.unit_rows : 0; }
  bool is_exact() const { return view.dtype == DType::i64; }
  // The same for a part of the tensor, or for its elements in another shape.
  GradientSum at(const TensorView& part) const { return {part, exact}; }
  // The same for units that the caller cuts in parts of at most so many rows, from a unit's first
  // row on, and adds part by part.
  GradientSum in_parts(std::int64_t rows) const {
    GradientSum part = *this;
    if (rows >= exact.unit_rows || !is_exact()) return part;
    const std::int64_t num_parts = (exact.unit_rows + rows - 1) / rows;
    part.exact.most_of_unit /= static_cast<double>(num_parts);
    part.exact.unit_rows = rows;
    return part;
  }
};

// Calls visit(begin, end) for consecutive pieces of about `size` rows: whole units, or, of units
// that are longer, parts of at most `size`. unit_rows 0: without units.
template <class Visit>
void for_each_piece_of_units(Device& device, std::int64_t num_rows, std::int64_t unit_rows,
                             std::int64_t size, Visit&& visit) {
  if (unit_rows == 0) return for_each_row_piece(device, num_rows, size, visit);
  if (unit_rows <= size)
    return for_each_row_piece(device, num_rows, size / unit_rows * unit_rows, visit);
  for_each_row_piece(device, num_rows, unit_rows, [&](std::int64_t first, std::int64_t last) {
    for_each_row_piece(device, last - first, size, [&](std::int64_t begin, std::int64_t end) {
      visit(first + begin, first + end);
    });
  });
}

// What exact sums of products take of Device::kernel_scratch, reserved for the device, or for the
// one that it plans for.
void reserve_exact_sums(Device& device);

}  // namespace switchyard::kernels
