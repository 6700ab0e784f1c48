// The oracle of split attention: every sequence whole, every score, in double. Operands are
// formulas of (which, sequence, position, column), so each rank computes the same without an
// exchange.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/attention/key_pattern.hpp"
#include "tensor/dtype.hpp"

namespace switchyard::test {

struct AttentionProblem {
  std::int64_t num_sequences = 2;
  std::int64_t length = 48;
  std::int64_t num_heads = 8;
  std::int64_t num_kv_heads = 2;
  std::int64_t head_dim = 8;
  std::int64_t window = 0;
  std::optional<kernels::KeyPattern> pattern = {};  // instead of the window, and what it shows
  std::function<bool(std::int64_t head, std::int64_t query, std::int64_t key)> sees = {};
  std::int64_t num_sinks = 0;                                   // a head
  std::vector<std::vector<std::int32_t>> document_starts = {};  // by sequence, or empty
  double spread = 0;  // most difference between the log-sum-exps of two stretches of keys
  bool is_bf16 = false;
  std::int64_t changed_from = std::numeric_limits<std::int64_t>::max();  // positions of other rows

  double scale() const { return 1 / std::sqrt(static_cast<double>(head_dim)); }
};

enum class Operand : std::uint32_t { q, k, v, dout, sinks };

class DenseAttention {
 public:
  using Values = std::vector<double>;

  // with_results: false where only the operands are wanted.
  explicit DenseAttention(const AttentionProblem& problem, bool with_results = true) : p(problem) {
    const std::int64_t rows = p.num_sequences * p.length;
    q = operand(Operand::q, rows, p.num_heads * p.head_dim);
    k = operand(Operand::k, rows, p.num_kv_heads * p.head_dim);
    v = operand(Operand::v, rows, p.num_kv_heads * p.head_dim);
    dout = operand(Operand::dout, rows, p.num_heads * p.head_dim);
    sinks = operand(Operand::sinks, p.num_heads, p.num_sinks);
    if (p.spread > 0) spread_scores();
    change_rows();
    out = dq = Values(q.size());
    dk = dv = Values(k.size());
    dsinks = Values(sinks.size());
    lse = Values(static_cast<std::size_t>(rows * p.num_heads));
    out_terms = dq_terms = out;
    dk_terms = dv_terms = dk;
    lse_terms = lse;
    dsinks_terms = dsinks;
    if (!with_results) return;
    for (std::int64_t s = 0; s < p.num_sequences; ++s)
      for (std::int64_t h = 0; h < p.num_heads; ++h)
        for (std::int64_t i = 0; i < p.length; ++i) attend(s, h, i);
  }

  const AttentionProblem p;
  Values q, k, v, dout, sinks;  // [S L, cols]; sinks [A, num_sinks]
  Values out, lse, dq, dk, dv, dsinks;
  // The same sums over the absolute values of their terms: what their rounding is relative to,
  // however much the terms cancel.
  Values out_terms, lse_terms, dq_terms, dk_terms, dv_terms, dsinks_terms;
  double largest_score = 0;  // scale * sum |q_d k_d|, of any pair

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  // In (-1, 1), exact in the type under test.
  Values operand(Operand which, std::int64_t rows, std::int64_t cols) const {
    Values values(at(rows * cols));
    std::uint64_t state = 0x9E3779B97F4A7C15ULL * (static_cast<std::uint64_t>(which) + 1);
    for (double& value : values) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      const auto number =
          static_cast<float>(static_cast<double>(state >> 40) / static_cast<double>(1 << 23) - 1);
      value =
          p.is_bf16 ? static_cast<double>(to_float(to_bf16(number))) : static_cast<double>(number);
    }
    return values;
  }

  // Of the operands of tokens.
  void change_rows() {
    for (std::int64_t row = 0; row < p.num_sequences * p.length; ++row)
      if (row % p.length >= p.changed_from)
        for (const auto& [values, cols] : {std::pair(&q, p.num_heads * p.head_dim),
                                           {&k, p.num_kv_heads * p.head_dim},
                                           {&v, p.num_kv_heads * p.head_dim}})
          for (std::int64_t c = 0; c < cols; ++c) (*values)[at(row * cols + c)] *= -0.5;
  }

  // Column 0 lifts the scores of each stretch of 8 keys to one of three levels.
  void spread_scores() {
    for (std::int64_t row = 0; row < p.num_sequences * p.length; ++row) {
      for (std::int64_t h = 0; h < p.num_heads; ++h)
        q[at((row * p.num_heads + h) * p.head_dim)] = 16;
      for (std::int64_t g = 0; g < p.num_kv_heads; ++g)
        k[at((row * p.num_kv_heads + g) * p.head_dim)] =
            static_cast<double>(row / 8 % 3 - 1) * p.spread / (2 * 16 * p.scale());
    }
  }

  std::int64_t first_seen(std::int64_t s, std::int64_t i) const {
    std::int64_t first = p.window > 0 ? std::max<std::int64_t>(i - p.window + 1, 0) : 0;
    if (!p.document_starts.empty())
      for (const std::int32_t start : p.document_starts[at(s)])
        if (start <= i) first = std::max<std::int64_t>(first, start);
    return first;
  }

  void attend(std::int64_t s, std::int64_t h, std::int64_t i) {
    const std::int64_t kv_head = h / (p.num_heads / p.num_kv_heads);
    const std::int64_t row = s * p.length + i;
    const std::int64_t first = first_seen(s, i);
    const auto query = [&](Values& of) { return &of[at((row * p.num_heads + h) * p.head_dim)]; };
    const auto key = [&](Values& of, std::int64_t j) {
      return &of[at(((s * p.length + j) * p.num_kv_heads + kv_head) * p.head_dim)];
    };
    const auto dot = [&](const double* a, const double* b) {
      double sum = 0;
      for (std::int64_t d = 0; d < p.head_dim; ++d) sum += a[d] * b[d];
      return sum;
    };
    const auto dot_terms = [&](const double* a, const double* b) {
      double sum = 0;
      for (std::int64_t d = 0; d < p.head_dim; ++d) sum += std::abs(a[d] * b[d]);
      return sum;
    };
    Values scores(at(i + 1 - first));
    double most = -std::numeric_limits<double>::infinity();
    for (std::int64_t j = first; j <= i; ++j) {
      const bool is_seen = !p.sees || p.sees(h, i, j);
      scores[at(j - first)] =
          is_seen ? p.scale() * dot(query(q), key(k, j)) : -std::numeric_limits<double>::infinity();
      most = std::max(most, scores[at(j - first)]);
      largest_score = std::max(largest_score, p.scale() * dot_terms(query(q), key(k, j)));
    }
    const double* sink = p.num_sinks > 0 ? &sinks[at(h * p.num_sinks)] : nullptr;
    for (std::int64_t n = 0; n < p.num_sinks; ++n) most = std::max(most, sink[n]);
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - most);
    for (std::int64_t n = 0; n < p.num_sinks; ++n) sum += std::exp(sink[n] - most);
    const double l = most + std::log(sum);
    lse[at(row * p.num_heads + h)] = l;
    lse_terms[at(row * p.num_heads + h)] = 1;  // an error of the sum is relative
    for (std::int64_t j = first; j <= i; ++j)
      for (std::int64_t d = 0; d < p.head_dim; ++d) {
        const double term = std::exp(scores[at(j - first)] - l) * key(v, j)[d];
        query(out)[d] += term;
        query(out_terms)[d] += std::abs(term);
      }

    const double delta = dot(query(dout), query(out));
    const double delta_terms = dot_terms(query(dout), query(out_terms));
    for (std::int64_t j = first; j <= i; ++j) {
      const double prob = std::exp(scores[at(j - first)] - l);
      const double dscore = p.scale() * prob * (dot(query(dout), key(v, j)) - delta);
      const double dscore_terms =
          p.scale() * prob * (dot_terms(query(dout), key(v, j)) + delta_terms);
      for (std::int64_t d = 0; d < p.head_dim; ++d) {
        query(dq)[d] += dscore * key(k, j)[d];
        key(dk, j)[d] += dscore * query(q)[d];
        key(dv, j)[d] += prob * query(dout)[d];
        query(dq_terms)[d] += dscore_terms * std::abs(key(k, j)[d]);
        key(dk_terms, j)[d] += dscore_terms * std::abs(query(q)[d]);
        key(dv_terms, j)[d] += prob * std::abs(query(dout)[d]);
      }
    }
    for (std::int64_t n = 0; n < p.num_sinks; ++n) {
      dsinks[at(h * p.num_sinks + n)] -= std::exp(sink[n] - l) * delta;
      dsinks_terms[at(h * p.num_sinks + n)] += std::exp(sink[n] - l) * delta_terms;
    }
  }
};

}  // namespace switchyard::test
