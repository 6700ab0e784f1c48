// Attention with grouped queries over a range of keys for each query as plain double loops, and its
// gradients by the textbook formulas: what the kernels are compared with. Matrices are dense and
// row-major, shaped as in kernels/attention/attention.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/attention/attention.hpp"

namespace switchyard::reference {

using Matrix = std::vector<double>;

// Query row i sees the keys first[i] ... end[i] - 1; as KeyRanges.
struct Visible {
  std::vector<std::int32_t> first;
  std::vector<std::int32_t> end;
  std::int64_t num_pairs() const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < first.size(); ++i) sum += end[i] - first[i];
    return sum;
  }
};

struct AttentionResult {
  Matrix out;  // [sequences * query_length, heads * head_dim]
  Matrix lse;  // [sequences * query_length, heads]
};
struct AttentionGradient {
  Matrix dq;
  Matrix dk;
  Matrix dv;
  Matrix dbias;  // [sequences * query_length, heads * parameters]; with a bias
};

// Where the vector of (sequence, query, head) or (sequence, key, kv head) begins.
inline std::size_t query_begin(const kernels::AttentionShape& s, std::int64_t sequence,
                               std::int64_t query, std::int64_t head) {
  return static_cast<std::size_t>(((sequence * s.query_length + query) * s.num_heads + head) *
                                  s.head_dim);
}
inline std::size_t key_begin(const kernels::AttentionShape& s, std::int64_t sequence,
                             std::int64_t key, std::int64_t head) {
  const std::int64_t kv_head = head / (s.num_heads / s.num_kv_heads);
  return static_cast<std::size_t>(((sequence * s.key_length + key) * s.num_kv_heads + kv_head) *
                                  s.head_dim);
}

inline double inner(const Matrix& a, std::size_t a_begin, const Matrix& b, std::size_t b_begin,
                    std::int64_t n) {
  double sum = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i)
    sum += a[a_begin + i] * b[b_begin + i];
  return sum;
}
inline void add_scaled(Matrix& to, std::size_t to_begin, double factor, const Matrix& from,
                       std::size_t from_begin, std::int64_t n) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i)
    to[to_begin + i] += factor * from[from_begin + i];
}

// Where the bias of a distance is looked up, and its parameter: the last one is for all beyond.
inline std::size_t distance_of(const kernels::AttentionShape& s, std::int64_t query,
                               std::int64_t key) {
  return static_cast<std::size_t>(std::min(query - key, std::ssize(s.bias.parameters) - 1));
}
inline double bias_of(const kernels::AttentionShape& s, std::int64_t head, std::int64_t query,
                      std::int64_t key) {
  if (s.bias.values.empty()) return 0;
  return static_cast<double>(s.bias.values.row<float>(head)[distance_of(s, query, key)]);
}

// Calls visit(sequence, query, head, first visible key, probabilities of the visible keys, lse);
// for a row that sees nothing without probabilities and with lse -infinity.
template <class Visit>
void for_each_query(const kernels::AttentionShape& s, const Visible& visible, const Matrix& q,
                    const Matrix& k, Visit&& visit) {
  for (std::int64_t n = 0; n < s.num_sequences; ++n)
    for (std::int64_t i = 0; i < s.query_length; ++i)
      for (std::int64_t h = 0; h < s.num_heads; ++h) {
        const auto row = static_cast<std::size_t>(n * s.query_length + i);
        const std::int64_t first = visible.first[row];
        std::vector<double> probs;
        for (std::int64_t j = first; j < visible.end[row]; ++j)
          probs.push_back(bias_of(s, h, i, j) +
                          static_cast<double>(s.scale) * inner(q, query_begin(s, n, i, h), k,
                                                               key_begin(s, n, j, h), s.head_dim));
        if (probs.empty()) {
          visit(n, i, h, first, probs, -std::numeric_limits<double>::infinity());
          continue;
        }
        const double max = *std::max_element(probs.begin(), probs.end());
        double sum = 0;
        for (double& p : probs) sum += (p = std::exp(p - max));
        for (double& p : probs) p /= sum;
        visit(n, i, h, first, probs, max + std::log(sum));
      }
}

inline AttentionResult attention_forward(const kernels::AttentionShape& s, const Visible& visible,
                                         const Matrix& q, const Matrix& k, const Matrix& v) {
  AttentionResult result{Matrix(q.size(), 0.0), {}};
  for_each_query(
      s, visible, q, k, [&](auto n, auto i, auto h, auto first, const auto& probs, double lse) {
        for (std::size_t j = 0; j < probs.size(); ++j)
          add_scaled(result.out, query_begin(s, n, i, h), probs[j], v,
                     key_begin(s, n, first + static_cast<std::int64_t>(j), h), s.head_dim);
        result.lse.push_back(lse);
      });
  return result;
}

// dv_j = sum p_ij dout_i; ds_ij = p_ij (dout_i . v_j - dout_i . out_i); dq_i = scale sum ds_ij k_j;
// dk_j = scale sum ds_ij q_i; dbias: ds_ij of the row, by parameter.
inline AttentionGradient attention_backward(const kernels::AttentionShape& s,
                                            const Visible& visible, const Matrix& q,
                                            const Matrix& k, const Matrix& v, const Matrix& dout) {
  const Matrix out = attention_forward(s, visible, q, k, v).out;
  AttentionGradient g{Matrix(q.size(), 0.0), Matrix(k.size(), 0.0), Matrix(v.size(), 0.0),
                      Matrix(static_cast<std::size_t>(s.num_sequences * s.query_length *
                                                      s.num_heads * s.bias.num_parameters),
                             0.0)};
  for_each_query(
      s, visible, q, k, [&](auto n, auto i, auto h, auto first, const auto& probs, double) {
        const std::size_t query = query_begin(s, n, i, h);
        const double delta = inner(dout, query, out, query, s.head_dim);
        for (std::size_t j = 0; j < probs.size(); ++j) {
          const std::size_t key = key_begin(s, n, first + static_cast<std::int64_t>(j), h);
          const double ds = probs[j] * (inner(dout, query, v, key, s.head_dim) - delta);
          if (!g.dbias.empty())
            g.dbias[static_cast<std::size_t>(
                ((n * s.query_length + i) * s.num_heads + h) * s.bias.num_parameters +
                s.bias.parameters[distance_of(s, i, first + static_cast<std::int64_t>(j))])] += ds;
          add_scaled(g.dv, key, probs[j], dout, query, s.head_dim);
          add_scaled(g.dq, query, ds * static_cast<double>(s.scale), k, key, s.head_dim);
          add_scaled(g.dk, key, ds * static_cast<double>(s.scale), q, query, s.head_dim);
        }
      });
  return g;
}

}  // namespace switchyard::reference
