// The layers of the model in double precision: plain loops, forward and backward, one function per
// formula. They are the oracle of the tests, so they are written to be read and share nothing with
// the kernels. Matrices are [rows, cols], row-major; weights are [out, in] as in PyTorch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
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

struct AttentionDims {
  std::int64_t length = 0;  // of a sequence
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  double rope_base = 10000;
  double rope_factor = 1;    // positions are divided by it
  std::int64_t window = 0;   // keys that a query sees, its own included; 0: all before
  std::int64_t globals = 0;  // first keys that a query sees beside them
  Weight sinks = {};         // [num_heads, number of sinks]; none if in is 0
  bool has_alibi = false;
  Weight slot_keys = {}, slot_values = {};  // [slots, kv heads * head_dim]; none if out is 0
  bool turns = true;                        // whether q and k are turned by position
  Weight relative = {};                     // T5's: [num_heads, buckets]; none if in is 0
  std::int64_t max_distance = 128;

  // T5's _relative_position_bucket of a key before the query.
  std::int64_t bucket(std::int64_t distance) const {
    const std::int64_t exact = relative.in / 2;
    if (distance < exact) return distance;
    const double share = std::log(static_cast<double>(distance) / static_cast<double>(exact)) /
                         std::log(static_cast<double>(max_distance) / static_cast<double>(exact));
    const double wide = share * static_cast<double>(relative.in - exact);
    return std::min(exact + static_cast<std::int64_t>(wide), relative.in - 1);
  }
  Weight span = {};       // fractions of the window, [num_heads, 1]; none if in is 0
  std::int64_t ramp = 0;  // of spans

  // What a weight of the softmax is multiplied by.
  double mask(std::int64_t head, std::int64_t distance) const {
    if (span.in == 0) return 1;
    const double z = span.value[head] * static_cast<double>(window);
    return std::clamp((static_cast<double>(ramp - distance) + z) / static_cast<double>(ramp), 0.0,
                      1.0);
  }
  // Its gradient by the fraction, over itself.
  double mask_slope(std::int64_t head, std::int64_t distance) const {
    const double m = mask(head, distance);
    return m > 0 && m < 1 ? static_cast<double>(window) / (static_cast<double>(ramp) * m) : 0;
  }
  // What a score is raised by.
  double by_distance(std::int64_t head, std::int64_t distance) const {
    const double raised =
        relative.in == 0 ? 0 : relative.value[head * relative.in + bucket(distance)];
    return raised - slope(head) * static_cast<double>(distance) + std::log(mask(head, distance));
  }

  // ALiBi's, as Hugging Face's build_alibi_tensor of Bloom has them.
  double slope(std::int64_t head) const {
    if (!has_alibi) return 0;
    std::int64_t power = 1;
    while (2 * power <= num_heads) power *= 2;
    const auto base = [](std::int64_t of) {
      return std::pow(2.0, -std::pow(2.0, -(std::log2(static_cast<double>(of)) - 3)));
    };
    if (head < power) return std::pow(base(power), static_cast<double>(head + 1));
    return std::pow(base(2 * power), static_cast<double>(2 * (head - power) + 1));
  }

  bool sees(std::int64_t query, std::int64_t key) const {
    return key <= query && (window == 0 || query - key < window || key < globals);
  }
  // First columns in a row of [q k v].
  std::int64_t q(std::int64_t head) const { return head * head_dim; }
  std::int64_t k(std::int64_t head) const {
    return (num_heads + head / (num_heads / num_kv_heads)) * head_dim;
  }
  std::int64_t v(std::int64_t head) const { return k(head) + num_kv_heads * head_dim; }
};

// Turns q and k by position; sign -1 turns back.
inline void rotate(Matrix& qkv, const AttentionDims& dims, double sign) {
  const std::int64_t half = dims.head_dim / 2;
  for (std::int64_t t = 0; t < qkv.rows; ++t)
    for (std::int64_t head = 0; head < dims.num_heads + dims.num_kv_heads; ++head)
      for (std::int64_t i = 0; i < half; ++i) {
        const double frequency = std::pow(
            dims.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(dims.head_dim));
        const double angle =
            sign * static_cast<double>(t % dims.length) / dims.rope_factor * frequency;
        double& a = qkv.at(t, head * dims.head_dim + i);
        double& b = qkv.at(t, head * dims.head_dim + i + half);
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = turned;
      }
}

// The rows of [q k v] as memory slots see them: not turned.
inline Matrix unturned(const Matrix& qkv, const AttentionDims& dims) {
  Matrix before = qkv;
  if (dims.turns && dims.slot_keys.out > 0) rotate(before, dims, -1);
  return before;
}

// First column of a head in a row of slots.
inline std::int64_t slot_col(const AttentionDims& dims, std::int64_t head) {
  return head / (dims.num_heads / dims.num_kv_heads) * dims.head_dim;
}

// Probabilities of the keys 0 ... i of the sequence beginning at row `first`, for its query i;
// after them, those of the sinks, then those of the slots, which see `plain`.
inline std::vector<double> attention_probs(const Matrix& qkv, const Matrix& plain,
                                           const AttentionDims& dims, std::int64_t first,
                                           std::int64_t i, std::int64_t head) {
  std::vector<double> probs;
  for (std::int64_t j = 0; j <= i; ++j) {
    double dot = 0;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      dot += qkv.at(first + i, dims.q(head) + d) * qkv.at(first + j, dims.k(head) + d);
    probs.push_back(dims.sees(i, j) ? dot / std::sqrt(static_cast<double>(dims.head_dim)) +
                                          dims.by_distance(head, i - j)
                                    : -std::numeric_limits<double>::infinity());
  }
  for (std::int64_t sink = 0; sink < dims.sinks.in; ++sink)
    probs.push_back(dims.sinks.value[head * dims.sinks.in + sink]);
  for (std::int64_t slot = 0; slot < dims.slot_keys.out; ++slot) {
    double dot = 0;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      dot += plain.at(first + i, dims.q(head) + d) *
             dims.slot_keys.value[slot * dims.slot_keys.in + slot_col(dims, head) + d];
    probs.push_back(dot / std::sqrt(static_cast<double>(dims.head_dim)));
  }
  const double largest = *std::max_element(probs.begin(), probs.end());
  for (double& p : probs) p = std::exp(p - largest);
  const double sum = std::accumulate(probs.begin(), probs.end(), 0.0);
  for (double& p : probs) p /= sum;
  return probs;
}

// qkv: after rotate(). Returns [T, num_heads * head_dim].
inline Matrix attention(const Matrix& qkv, const AttentionDims& dims) {
  Matrix out(qkv.rows, dims.num_heads * dims.head_dim);
  const Matrix plain = unturned(qkv, dims);
  for (std::int64_t t = 0; t < qkv.rows; ++t)
    for (std::int64_t head = 0; head < dims.num_heads; ++head) {
      const std::int64_t i = t % dims.length;
      const std::vector<double> probs = attention_probs(qkv, plain, dims, t - i, i, head);
      for (std::int64_t j = 0; j <= i; ++j)
        for (std::int64_t d = 0; d < dims.head_dim; ++d)
          out.at(t, dims.q(head) + d) +=
              probs[static_cast<std::size_t>(j)] * qkv.at(t - i + j, dims.v(head) + d);
      for (std::int64_t slot = 0; slot < dims.slot_values.out; ++slot)
        for (std::int64_t d = 0; d < dims.head_dim; ++d)
          out.at(t, dims.q(head) + d) +=
              probs[static_cast<std::size_t>(i + 1 + dims.sinks.in + slot)] *
              dims.slot_values.value[slot * dims.slot_values.in + slot_col(dims, head) + d];
    }
  return out;
}

inline Matrix attention_backward(const Matrix& dout, const Matrix& qkv, const AttentionDims& dims) {
  Matrix dqkv(qkv.rows, qkv.cols);
  const Matrix plain = unturned(qkv, dims);
  Matrix d_plain(qkv.rows, qkv.cols);
  const double scale = 1 / std::sqrt(static_cast<double>(dims.head_dim));
  for (std::int64_t t = 0; t < qkv.rows; ++t)
    for (std::int64_t head = 0; head < dims.num_heads; ++head) {
      const std::int64_t i = t % dims.length;
      const std::int64_t first = t - i;
      const std::vector<double> probs = attention_probs(qkv, plain, dims, first, i, head);
      std::vector<double> dprobs(probs.size());
      double mean = 0;
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto at = static_cast<std::size_t>(j);
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          dprobs[at] += dout.at(t, dims.q(head) + d) * qkv.at(first + j, dims.v(head) + d);
          dqkv.at(first + j, dims.v(head) + d) += probs[at] * dout.at(t, dims.q(head) + d);
        }
        mean += probs[at] * dprobs[at];
      }
      const auto slot_at = [&](std::int64_t slot) {
        return static_cast<std::size_t>(i + 1 + dims.sinks.in + slot);
      };
      for (std::int64_t slot = 0; slot < dims.slot_values.out; ++slot) {
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          const std::int64_t at = slot * dims.slot_values.in + slot_col(dims, head) + d;
          dprobs[slot_at(slot)] += dout.at(t, dims.q(head) + d) * dims.slot_values.value[at];
          dims.slot_values.gradient[at] += probs[slot_at(slot)] * dout.at(t, dims.q(head) + d);
        }
        mean += probs[slot_at(slot)] * dprobs[slot_at(slot)];
      }
      for (std::int64_t slot = 0; slot < dims.slot_keys.out; ++slot) {
        const double dscore = scale * probs[slot_at(slot)] * (dprobs[slot_at(slot)] - mean);
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          const std::int64_t at = slot * dims.slot_keys.in + slot_col(dims, head) + d;
          d_plain.at(t, dims.q(head) + d) += dscore * dims.slot_keys.value[at];
          dims.slot_keys.gradient[at] += dscore * plain.at(t, dims.q(head) + d);
        }
      }
      for (std::int64_t sink = 0; sink < dims.sinks.in; ++sink)
        dims.sinks.gradient[head * dims.sinks.in + sink] -=
            probs[static_cast<std::size_t>(i + 1 + sink)] * mean;
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto at = static_cast<std::size_t>(j);
        const double dbias = probs[at] * (dprobs[at] - mean);
        if (dims.span.in > 0) dims.span.gradient[head] += dbias * dims.mask_slope(head, i - j);
        if (dims.relative.in > 0)
          dims.relative.gradient[head * dims.relative.in + dims.bucket(i - j)] += dbias;
        const double dscore = scale * dbias;
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          dqkv.at(t, dims.q(head) + d) += dscore * qkv.at(first + j, dims.k(head) + d);
          dqkv.at(first + j, dims.k(head) + d) += dscore * qkv.at(t, dims.q(head) + d);
        }
      }
    }
  if (dims.slot_keys.out == 0) return dqkv;
  if (dims.turns) rotate(d_plain, dims, 1);
  add_to(dqkv, d_plain);
  return dqkv;
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
