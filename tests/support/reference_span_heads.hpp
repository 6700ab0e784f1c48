// Heads that are convolutions whose taps each token makes (ConvBERT, causal), in double precision,
// tap by tap: forward and every gradient.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/support/reference_layers.hpp"

namespace switchyard::reference_model {

struct SpanHeads {
  std::int64_t length = 0;  // of a sequence
  std::int64_t num_heads = 0, head_dim = 0, width = 0;
  // [hidden, width], [C, hidden], [2 C, hidden], [heads * width, C], [hidden, C] with C = heads *
  // head_dim.
  Weight conv, point, input, kernel, output;

  Matrix convolved, pointwise, inputs, products, shares, out;

  // Calls each(row, row of the tap, tap) for taps within the sequence.
  template <class Each>
  void for_each_tap(std::int64_t num_rows, const Each& each) const {
    for (std::int64_t t = 0; t < num_rows; ++t)
      for (std::int64_t j = 0; j < width && j <= t % length; ++j) each(t, t - j, j);
  }

  Matrix forward(const Matrix& x) {
    const std::int64_t cols = num_heads * head_dim;
    convolved = Matrix(x.rows, x.cols);
    for_each_tap(x.rows, [&](std::int64_t t, std::int64_t tap, std::int64_t j) {
      for (std::int64_t c = 0; c < x.cols; ++c)
        convolved.at(t, c) += conv.value[c * width + width - 1 - j] * x.at(tap, c);
    });
    pointwise = linear(convolved, point);
    inputs = linear(x, input);
    products = Matrix(x.rows, cols);
    for (std::int64_t t = 0; t < x.rows; ++t)
      for (std::int64_t c = 0; c < cols; ++c)
        products.at(t, c) = inputs.at(t, c) * pointwise.at(t, c);
    shares = linear(products, kernel);
    for (std::int64_t t = 0; t < x.rows; ++t)
      for (std::int64_t h = 0; h < num_heads; ++h) {
        double sum = 0;
        for (std::int64_t j = 0; j < width; ++j) sum += std::exp(shares.at(t, h * width + j));
        for (std::int64_t j = 0; j < width; ++j)
          shares.at(t, h * width + j) = std::exp(shares.at(t, h * width + j)) / sum;
      }
    out = Matrix(x.rows, cols);
    for_each_tap(x.rows, [&](std::int64_t t, std::int64_t tap, std::int64_t j) {
      for (std::int64_t c = 0; c < cols; ++c)
        out.at(t, c) += shares.at(t, c / head_dim * width + j) * inputs.at(tap, cols + c);
    });
    return linear(out, output);
  }

  // Returns the gradient of x.
  Matrix backward(const Matrix& dy, const Matrix& x) {
    const std::int64_t cols = num_heads * head_dim;
    const Matrix d_out = linear_backward(dy, out, output);
    Matrix d_inputs(x.rows, 2 * cols), d_shares(x.rows, shares.cols);
    for_each_tap(x.rows, [&](std::int64_t t, std::int64_t tap, std::int64_t j) {
      for (std::int64_t c = 0; c < cols; ++c) {
        const std::int64_t share = c / head_dim * width + j;
        d_inputs.at(tap, cols + c) += shares.at(t, share) * d_out.at(t, c);
        d_shares.at(t, share) += inputs.at(tap, cols + c) * d_out.at(t, c);
      }
    });
    Matrix d_logits(x.rows, shares.cols);
    for (std::int64_t t = 0; t < x.rows; ++t)
      for (std::int64_t h = 0; h < num_heads; ++h) {
        double mean = 0;
        for (std::int64_t i = h * width; i < (h + 1) * width; ++i)
          mean += shares.at(t, i) * d_shares.at(t, i);
        for (std::int64_t i = h * width; i < (h + 1) * width; ++i)
          d_logits.at(t, i) = shares.at(t, i) * (d_shares.at(t, i) - mean);
      }
    const Matrix d_products = linear_backward(d_logits, products, kernel);
    Matrix d_pointwise(x.rows, cols);
    for (std::int64_t t = 0; t < x.rows; ++t)
      for (std::int64_t c = 0; c < cols; ++c) {
        d_inputs.at(t, c) = d_products.at(t, c) * pointwise.at(t, c);
        d_pointwise.at(t, c) = d_products.at(t, c) * inputs.at(t, c);
      }
    Matrix dx = linear_backward(d_inputs, x, input);
    const Matrix d_convolved = linear_backward(d_pointwise, convolved, point);
    for_each_tap(x.rows, [&](std::int64_t t, std::int64_t tap, std::int64_t j) {
      for (std::int64_t c = 0; c < x.cols; ++c) {
        const std::int64_t w = c * width + width - 1 - j;
        dx.at(tap, c) += conv.value[w] * d_convolved.at(t, c);
        conv.gradient[w] += d_convolved.at(t, c) * x.at(tap, c);
      }
    });
    return dx;
  }
};

}  // namespace switchyard::reference_model
