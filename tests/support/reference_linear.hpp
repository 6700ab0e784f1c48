// Products with a weight matrix as plain double loops: what the kernels are compared with.
// Matrices are dense and row-major.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::reference {

using Matrix = std::vector<double>;

struct LinearShape {
  std::int64_t rows = 0;
  std::int64_t out = 0;
  std::int64_t in = 0;
};

inline std::size_t at(std::int64_t row, std::int64_t cols, std::int64_t col) {
  return static_cast<std::size_t>(row * cols + col);
}

// y [rows, out] = x [rows, in] w^T, w: [out, in].
inline Matrix linear_forward(const LinearShape& s, const Matrix& x, const Matrix& w) {
  Matrix y(static_cast<std::size_t>(s.rows * s.out), 0.0);
  for (std::int64_t r = 0; r < s.rows; ++r)
    for (std::int64_t o = 0; o < s.out; ++o)
      for (std::int64_t i = 0; i < s.in; ++i)
        y[at(r, s.out, o)] += x[at(r, s.in, i)] * w[at(o, s.in, i)];
  return y;
}

// dx [rows, in] = dy [rows, out] w.
inline Matrix linear_backward_input(const LinearShape& s, const Matrix& dy, const Matrix& w) {
  Matrix dx(static_cast<std::size_t>(s.rows * s.in), 0.0);
  for (std::int64_t r = 0; r < s.rows; ++r)
    for (std::int64_t o = 0; o < s.out; ++o)
      for (std::int64_t i = 0; i < s.in; ++i)
        dx[at(r, s.in, i)] += dy[at(r, s.out, o)] * w[at(o, s.in, i)];
  return dx;
}

// dw [out, in] = dy^T x.
inline Matrix linear_backward_weight(const LinearShape& s, const Matrix& dy, const Matrix& x) {
  Matrix dw(static_cast<std::size_t>(s.out * s.in), 0.0);
  for (std::int64_t r = 0; r < s.rows; ++r)
    for (std::int64_t o = 0; o < s.out; ++o)
      for (std::int64_t i = 0; i < s.in; ++i)
        dw[at(o, s.in, i)] += dy[at(r, s.out, o)] * x[at(r, s.in, i)];
  return dw;
}

}  // namespace switchyard::reference
