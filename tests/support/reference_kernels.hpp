// What the kernels compute, as plain loops in double precision over row-major vectors: the oracle
// of the kernels' tests. Only forward passes: gradients are held against central differences of
// these. Legend: T rows, H columns, E experts, k choices.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace switchyard::reference {

using Doubles = std::vector<double>;

// d loss / d x[i] = (loss(x + h e_i) - loss(x - h e_i)) / 2 h
inline Doubles numerical_gradient(const std::function<double(const Doubles&)>& loss, Doubles x,
                                  double h = 1e-5) {
  Doubles gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + h;
    const double above = loss(x);
    x[i] = at - h;
    gradient[i] = (above - loss(x)) / (2 * h);
    x[i] = at;
  }
  return gradient;
}

inline double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// x: [T, H], weight: [H].
inline Doubles rms_norm(const Doubles& x, const Doubles& weight, double epsilon) {
  const std::size_t hidden = weight.size();
  Doubles y(x.size());
  for (std::size_t row = 0; row < x.size(); row += hidden) {
    double squares = 0;
    for (std::size_t h = 0; h < hidden; ++h) squares += x[row + h] * x[row + h];
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(hidden) + epsilon);
    for (std::size_t h = 0; h < hidden; ++h) y[row + h] = x[row + h] * rstd * weight[h];
  }
  return y;
}

// x: [T, heads * head_dim]; row t is at position first + t % length.
inline Doubles rope(Doubles x, std::size_t cols, std::size_t head_dim, std::size_t length,
                    std::size_t first, double base) {
  const std::size_t half = head_dim / 2;
  for (std::size_t t = 0; t < x.size() / cols; ++t)
    for (std::size_t head = t * cols; head < (t + 1) * cols; head += head_dim)
      for (std::size_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(first + t % length) *
            std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        const double a = x[head + i], b = x[head + i + half];
        x[head + i] = a * std::cos(angle) - b * std::sin(angle);
        x[head + i + half] = b * std::cos(angle) + a * std::sin(angle);
      }
  return x;
}

// gate_up: [T, 2 width]; returns [T, width].
inline Doubles swiglu(const Doubles& gate_up, std::size_t width) {
  Doubles act(gate_up.size() / 2);
  for (std::size_t i = 0; i < act.size(); ++i) {
    const std::size_t gate = i / width * 2 * width + i % width;
    act[i] = gate_up[gate] / (1 + std::exp(-gate_up[gate])) * gate_up[gate + width];
  }
  return act;
}

inline double log_sum_exp(const double* x, std::size_t n) {
  const double largest = *std::max_element(x, x + n);
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

// logits: [T, cols], of which the first vocab_size count. One loss a row.
inline Doubles cross_entropy(const Doubles& logits, const std::vector<std::int32_t>& targets,
                             std::size_t cols, std::size_t vocab_size) {
  Doubles losses;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    const double* row = &logits[t * cols];
    losses.push_back(log_sum_exp(row, vocab_size) - row[targets[t]]);
  }
  return losses;
}

inline Doubles softmax(const Doubles& logits, std::size_t cols) {
  Doubles probs(logits.size());
  for (std::size_t row = 0; row < logits.size(); row += cols) {
    const double lse = log_sum_exp(&logits[row], cols);
    for (std::size_t i = row; i < row + cols; ++i) probs[i] = std::exp(logits[i] - lse);
  }
  return probs;
}

// Indices of the k largest of `probs`, largest first, ties to the lower index.
inline std::vector<std::int32_t> largest(const double* probs, std::size_t n, std::size_t k) {
  std::vector<std::int32_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<std::int32_t>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return probs[a] > probs[b]; });
  order.resize(k);
  return order;
}

// The weights of given choices: probs [T, E] at indices [T, k].
inline Doubles gate_weights(const Doubles& probs, std::size_t num_experts,
                            const std::vector<std::int32_t>& indices, std::size_t top_k,
                            bool renormalize) {
  Doubles weights(indices.size());
  for (std::size_t token = 0; token < indices.size(); token += top_k) {
    double sum = 0;
    for (std::size_t j = token; j < token + top_k; ++j) {
      weights[j] = probs[token / top_k * num_experts + static_cast<std::size_t>(indices[j])];
      sum += weights[j];
    }
    if (!renormalize) continue;
    for (std::size_t j = token; j < token + top_k; ++j) weights[j] /= sum;
  }
  return weights;
}

// rows: [T k, H], row_of_slot and weights: [T, k]; returns [T, H].
inline Doubles combine(const Doubles& rows, const std::vector<std::int32_t>& row_of_slot,
                       const Doubles& weights, std::size_t top_k, std::size_t hidden) {
  Doubles out(row_of_slot.size() / top_k * hidden);
  for (std::size_t slot = 0; slot < row_of_slot.size(); ++slot) {
    if (row_of_slot[slot] < 0) continue;  // dropped
    for (std::size_t h = 0; h < hidden; ++h)
      out[slot / top_k * hidden + h] +=
          weights[slot] * rows[static_cast<std::size_t>(row_of_slot[slot]) * hidden + h];
  }
  return out;
}

}  // namespace switchyard::reference
