// Random operands for the tests of products and attention, in a kernel's type and as the doubles
// that the reference reads, and the comparison of the two.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <iostream>
#include <string_view>
#include <vector>

#include "kernels/isa.hpp"
#include "tensor/random.hpp"
#include "tensor/tensor.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

// bf16 keeps 8 significant bits: rounding to nearest is off by at most 2^-8 of the value.
inline constexpr double bf16_rounding = 1.0 / 256;

inline double get(const TensorView& x, std::int64_t row, std::int64_t col) {
  return static_cast<double>(x.dtype == DType::f32 ? x.row<float>(row)[col]
                                                   : to_float(x.row<BFloat16>(row)[col]));
}
inline void set(const TensorView& x, std::int64_t row, std::int64_t col, float value) {
  if (x.dtype == DType::f32)
    x.row<float>(row)[col] = value;
  else
    x.row<BFloat16>(row)[col] = to_bf16(value);
}

// Fills with normal numbers times `factor`, a function of the purpose and the element alone.
inline void fill_random(const TensorView& x, std::string_view purpose, float factor = 1.0f) {
  const RandomKey key = random_key(7, purpose);
  for (std::int64_t r = 0; r < x.rows(); ++r)
    for (std::int64_t c = 0; c < x.cols(); ++c)
      set(x, r, c,
          factor * normals(random_words(key, static_cast<std::uint64_t>(r),
                                        static_cast<std::uint64_t>(c)))[0]);
}

inline Tensor random_tensor(Device& device, DType dtype, Shape shape, std::string_view purpose,
                            float factor = 1.0f) {
  Tensor x(device, Purpose::activation, dtype, shape);
  fill_random(x, purpose, factor);
  return x;
}

inline std::vector<double> doubles(const TensorView& x) {
  std::vector<double> values;
  for (std::int64_t r = 0; r < x.rows(); ++r)
    for (std::int64_t c = 0; c < x.cols(); ++c) values.push_back(get(x, r, c));
  return values;
}

// |actual - expected| / |expected|, in the Euclidean norm.
inline double relative_error(const std::vector<double>& actual,
                             const std::vector<double>& expected) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return actual.size() == expected.size() ? std::sqrt(difference / (norm > 0 ? norm : 1.0)) : NAN;
}

inline bool same_bits(const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape || a.dtype != b.dtype) return false;
  const auto row_bytes = static_cast<std::size_t>(a.cols() * size_of(a.dtype));
  for (std::int64_t r = 0; r < a.rows(); ++r)
    if (std::memcmp(a.data + r * a.row_stride * size_of(a.dtype),
                    b.data + r * b.row_stride * size_of(b.dtype), row_bytes) != 0)
      return false;
  return true;
}

// The main of a test that ctest runs once for every instruction set, named by SWITCHYARD_MAX_ISA,
// and on a card where SWITCHYARD_TEST_DEVICE names it.
inline int run_tests_on_isa(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  choose_tested_device();
  kernels::limit_isa_from_environment();
  std::cout << "instruction set: " << kernels::name_of(kernels::active_isa()) << '\n';
  return RUN_ALL_TESTS();
}

}  // namespace switchyard::test
