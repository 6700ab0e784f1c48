// Of the oracle of the experts' tests (reference_moe.hpp): one SwiGLU network on one token, and its
// gradients, in plain double-precision loops.
#pragma once

#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace switchyard::test {

using Doubles = std::vector<double>;

inline double sigmoid_of(double x) {
  return 1 / (1 + std::exp(-x));
}

// out = down (silu(gate x) * up x), with H = hidden and I = intermediate.
struct ReferenceNetwork {
  std::size_t hidden, intermediate;
  const double *gate_up, *down;  // [2 I, H], [H, I]

  struct Inner {
    Doubles gate, up, act, out;
  };

  Inner forward(const double* x) const {
    Inner inner{Doubles(intermediate), Doubles(intermediate), Doubles(intermediate),
                Doubles(hidden)};
    const double* up_row = gate_up + intermediate * hidden;
    for (std::size_t i = 0; i < intermediate; ++i) {
      inner.gate[i] = std::inner_product(x, x + hidden, gate_up + i * hidden, 0.0);
      inner.up[i] = std::inner_product(x, x + hidden, up_row + i * hidden, 0.0);
      inner.act[i] = inner.gate[i] * sigmoid_of(inner.gate[i]) * inner.up[i];
    }
    for (std::size_t h = 0; h < hidden; ++h)
      inner.out[h] =
          std::inner_product(inner.act.begin(), inner.act.end(), down + h * intermediate, 0.0);
    return inner;
  }

  // Adds to d_gate_up, d_down and dx.
  void add_gradients(const double* x, const Inner& inner, const Doubles& dout, double* d_gate_up,
                     double* d_down, double* dx) const {
    const std::size_t up_at = intermediate * hidden;
    for (std::size_t i = 0; i < intermediate; ++i) {
      double dact = 0;
      for (std::size_t h = 0; h < hidden; ++h) {
        const std::size_t at = h * intermediate + i;
        dact += dout[h] * down[at];
        d_down[at] += dout[h] * inner.act[i];
      }
      const double s = sigmoid_of(inner.gate[i]);
      const double dup = dact * inner.gate[i] * s;
      const double dgate = dact * inner.up[i] * s * (1 + inner.gate[i] * (1 - s));
      for (std::size_t h = 0; h < hidden; ++h) {
        d_gate_up[i * hidden + h] += dgate * x[h];
        d_gate_up[up_at + i * hidden + h] += dup * x[h];
        dx[h] += dgate * gate_up[i * hidden + h] + dup * gate_up[up_at + i * hidden + h];
      }
    }
  }
};

}  // namespace switchyard::test
