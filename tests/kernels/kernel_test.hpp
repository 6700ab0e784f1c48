// What the kernels' tests share: operands with guarded gaps between their rows, comparison against
// doubles, runs with one and two threads. main() (kernel_main.cpp) applies SWITCHYARD_MAX_ISA.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "support/reference_kernels.hpp"
#include "tensor/error.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::test {

using reference::Doubles;

// The device under test (tests/support/tested_device.hpp), whose operands the host can touch.
Device& tested();

// A [rows, cols] view with `gap` elements before and after each row, which hold a mark that no
// kernel may touch. Values are uniform in [-2, 2), then rounded to the type.
class Operand {
 public:
  Operand(DType dtype, std::int64_t rows, std::int64_t cols, unsigned seed = 1,
          std::int64_t gap = 0);
  static Operand of_ints(const std::vector<std::int32_t>& values, std::int64_t cols = 1);

  operator const TensorView&() const { return view_; }  // NOLINT: an operand reads as its view
  const TensorView& view() const { return view_; }
  void set(const Doubles& values) const;
  void scale_by(double factor);
  Doubles values() const;
  std::vector<std::int32_t> ints() const;
  bool gaps_untouched() const;

 private:
  Tensor owner_;
  TensorView view_;
  std::int64_t gap_ = 0;
};

inline Operand vector_of(std::int64_t n, unsigned seed = 1) {
  return Operand(DType::f32, n, 1, seed);
}

// |actual - expected| <= tolerance * (1 + |expected|) everywhere, and the gaps are as they were.
void expect_close(const Operand& actual, const Doubles& expected, double tolerance);
// Of results rounded to this type after fp32 arithmetic on a few hundred terms.
inline double tolerance_of(DType dtype) {
  return dtype == DType::bf16 ? 0x1p-8 : 4e-6;
}

// call() throws InternalError. On a card, what a kernel finds wrong in its operands ends the
// process's work there, so it happens in a process of its own.
void expect_refused(const std::function<void()>& call);

// Calls run() with one thread and with two; the doubles it returns must be the same bits.
void expect_same_for_any_threads(const std::function<std::vector<Doubles>()>& run);

struct Case {
  DType dtype;
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t gap;
};
// Both types, no row to many, odd widths, dense and strided; each is traced in failures.
void for_each_case(const std::function<void(const Case&)>& body);

}  // namespace switchyard::test
