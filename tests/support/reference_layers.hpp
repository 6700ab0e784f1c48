// The layers of the model in double precision: plain loops, forward and backward, one function per
// formula. They are the oracle of the tests, so they are written to be read and share nothing with
// the kernels. Matrices are [rows, cols], row-major; weights are [out, in] as in PyTorch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

namespace switchyard::reference_model {

struct Matrix {
  Matrix() = default;
  Matrix(std::int64_t num_rows, std::int64_t num_cols)
      : rows(num_rows), cols(num_cols), data(static_cast<std::size_t>(num_rows * num_cols)) {}
  double& at(std::int64_t r, std::int64_t c) {
    return data[static_cast<std::size_t>(r * cols + c)];
  }
  double at(std::int64_t r, std::int64_t c) const {
    return data[static_cast<std::size_t>(r * cols + c)];
  }
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<double> data;
};

// A weight and where its gradient is added.
struct Weight {
  const double* value = nullptr;
  double* gradient = nullptr;
  std::int64_t out = 0;
  std::int64_t in = 0;
};

inline void add_to(std::vector<double>& x, const std::vector<double>& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}
inline void add_to(Matrix& x, const Matrix& y) {
  add_to(x.data, y.data);
}

// An empty mask changes nothing.
inline void multiply(Matrix& x, const Matrix& mask) {
  if (mask.data.empty()) return;
  for (std::size_t i = 0; i < x.data.size(); ++i) x.data[i] *= mask.data[i];
}

inline Matrix linear(const Matrix& x, const Weight& w) {
  Matrix y(x.rows, w.out);
  for (std::int64_t t = 0; t < x.rows; ++t)
    for (std::int64_t o = 0; o < w.out; ++o)
      for (std::int64_t i = 0; i < w.in; ++i) y.at(t, o) += x.at(t, i) * w.value[o * w.in + i];
  return y;
}

inline Matrix linear_backward(const Matrix& dy, const Matrix& x, const Weight& w) {
  Matrix dx(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t)
    for (std::int64_t o = 0; o < w.out; ++o)
      for (std::int64_t i = 0; i < w.in; ++i) {
        dx.at(t, i) += dy.at(t, o) * w.value[o * w.in + i];
        w.gradient[o * w.in + i] += dy.at(t, o) * x.at(t, i);
      }
  return dx;
}

inline double reciprocal_rms(const Matrix& x, std::int64_t t, double epsilon) {
  double squares = 0;
  for (std::int64_t h = 0; h < x.cols; ++h) squares += x.at(t, h) * x.at(t, h);
  return 1 / std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
}

inline Matrix rms_norm(const Matrix& x, const Weight& gain, double epsilon) {
  Matrix y(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const double rstd = reciprocal_rms(x, t, epsilon);
    for (std::int64_t h = 0; h < x.cols; ++h) y.at(t, h) = x.at(t, h) * rstd * gain.value[h];
  }
  return y;
}

inline Matrix rms_norm_backward(const Matrix& dy, const Matrix& x, const Weight& gain,
                                double epsilon) {
  Matrix dx(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const double rstd = reciprocal_rms(x, t, epsilon);
    double projection = 0;  // of the scaled gradient on x
    for (std::int64_t h = 0; h < x.cols; ++h) {
      gain.gradient[h] += dy.at(t, h) * x.at(t, h) * rstd;
      projection += dy.at(t, h) * gain.value[h] * x.at(t, h);
    }
    projection *= rstd * rstd * rstd / static_cast<double>(x.cols);
    for (std::int64_t h = 0; h < x.cols; ++h)
      dx.at(t, h) = dy.at(t, h) * gain.value[h] * rstd - projection * x.at(t, h);
  }
  return dx;
}

// silu(gate) * up of a [T, 2 I] matrix with the gates in the first I columns.
inline Matrix swiglu(const Matrix& gate_up) {
  Matrix act(gate_up.rows, gate_up.cols / 2);
  for (std::int64_t t = 0; t < act.rows; ++t)
    for (std::int64_t i = 0; i < act.cols; ++i) {
      const double gate = gate_up.at(t, i);
      act.at(t, i) = gate / (1 + std::exp(-gate)) * gate_up.at(t, act.cols + i);
    }
  return act;
}

inline Matrix swiglu_backward(const Matrix& d_act, const Matrix& gate_up) {
  Matrix d_gate_up(gate_up.rows, gate_up.cols);
  for (std::int64_t t = 0; t < d_act.rows; ++t)
    for (std::int64_t i = 0; i < d_act.cols; ++i) {
      const double gate = gate_up.at(t, i);
      const double sigmoid = 1 / (1 + std::exp(-gate));
      const double slope = sigmoid * (1 + gate * (1 - sigmoid));
      d_gate_up.at(t, i) = d_act.at(t, i) * slope * gate_up.at(t, d_act.cols + i);
      d_gate_up.at(t, d_act.cols + i) = d_act.at(t, i) * gate * sigmoid;
    }
  return d_gate_up;
}

inline Matrix feed_forward(const Matrix& x, const Weight& gate_up, const Weight& down) {
  return linear(swiglu(linear(x, gate_up)), down);
}

inline Matrix feed_forward_backward(const Matrix& dy, const Matrix& x, const Weight& gate_up,
                                    const Weight& down) {
  const Matrix before = linear(x, gate_up);
  const Matrix d_act = linear_backward(dy, swiglu(before), down);
  return linear_backward(swiglu_backward(d_act, before), x, gate_up);
}

}  // namespace switchyard::reference_model
