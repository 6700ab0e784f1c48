// Numbers for the experts' tests: a formula of a name and an index, the same on every rank.
#pragma once

#include <string_view>
#include <vector>

#include "tensor/random.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::test {

// Uniform in [-scale, scale).
inline std::vector<double> random_doubles(std::string_view name, std::size_t size, double scale) {
  const RandomKey key = random_key(4711, name);
  std::vector<double> values(size);
  for (std::size_t i = 0; i < size; ++i)
    values[i] = scale * (2.0 * static_cast<double>(uniform(random_words(key, i, 0)[0])) - 1.0);
  return values;
}

// Values as the compute type holds them.
inline void round_to(DType dtype, std::vector<double>& values) {
  for (double& value : values) {
    const float narrow = static_cast<float>(value);
    value = dtype == DType::bf16 ? to_float(to_bf16(narrow)) : narrow;
  }
}

inline double read(const TensorView& view, std::int64_t row, std::int64_t col) {
  if (view.dtype == DType::bf16) return to_float(view.row<BFloat16>(row)[col]);
  return view.row<float>(row)[col];
}

inline void write(const TensorView& view, const double* values) {
  for (std::int64_t i = 0; i < view.numel(); ++i) {
    const float value = static_cast<float>(values[i]);
    if (view.dtype == DType::bf16)
      view.as<BFloat16>()[i] = to_bf16(value);
    else
      view.as<float>()[i] = value;
  }
}

inline std::vector<double> to_doubles(const TensorView& view) {
  std::vector<double> values;
  for (std::int64_t r = 0; r < view.rows(); ++r)
    for (std::int64_t c = 0; c < view.cols(); ++c) values.push_back(read(view, r, c));
  return values;
}

}  // namespace switchyard::test
