// Attention in double precision, pair by pair: forward and every gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/support/reference_attention_dims.hpp"
#include "tests/support/reference_layers.hpp"

namespace switchyard::reference_model {

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

// The mean of a head's columns from `col` on over a block of the sequence beginning at row `first`.
inline std::vector<double> block_mean(const Matrix& qkv, const AttentionDims& dims,
                                      std::int64_t first, std::int64_t block, std::int64_t col) {
  std::vector<double> mean(static_cast<std::size_t>(dims.head_dim), 0.0);
  for (std::int64_t row = first + block * dims.block; row < first + (block + 1) * dims.block; ++row)
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      mean[static_cast<std::size_t>(d)] += qkv.at(row, col + d) / static_cast<double>(dims.block);
  return mean;
}

// Summary number `s` of the sequence: of keys, or of values.
inline std::vector<double> summary_of(const Matrix& qkv, const AttentionDims& dims,
                                      const Weight& weights, std::int64_t first, std::int64_t s,
                                      std::int64_t col) {
  std::vector<double> sum(static_cast<std::size_t>(dims.head_dim), 0.0);
  const std::int64_t begin = first + s / dims.summaries * dims.block;
  for (std::int64_t t = 0; t < dims.block; ++t)
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      sum[static_cast<std::size_t>(d)] +=
          dims.share(weights, s % dims.summaries, t) * qkv.at(begin + t, col + d);
  return sum;
}

// Whether the query's kv head chose the key's block, or has it in the window.
inline std::vector<bool> blocks_in_sight(const Matrix& qkv, const AttentionDims& dims,
                                         std::int64_t first, std::int64_t i, std::int64_t head) {
  const std::int64_t whole = dims.whole_blocks(i);
  const std::int64_t group = dims.num_heads / dims.num_kv_heads;
  std::vector<std::pair<double, std::int64_t>> by_score;
  for (std::int64_t b = 0; b < whole; ++b) {
    const std::vector<double> mean = block_mean(qkv, dims, first, b, dims.k(head));
    double score = 0;
    for (std::int64_t h = head / group * group; h < (head / group + 1) * group; ++h)
      for (std::int64_t d = 0; d < dims.head_dim; ++d)
        score += qkv.at(first + i, dims.q(h) + d) * mean[static_cast<std::size_t>(d)];
    by_score.emplace_back(-score, b);
  }
  std::sort(by_score.begin(), by_score.end());
  std::vector<bool> seen(static_cast<std::size_t>(i / dims.block + 1), false);
  for (std::int64_t b = whole; b <= i / dims.block; ++b)
    seen[static_cast<std::size_t>(b)] = dims.has_window;
  for (std::int64_t j = 0; j < std::min(dims.selected, whole); ++j)
    seen[static_cast<std::size_t>(by_score[static_cast<std::size_t>(j)].second)] = true;
  return seen;
}

inline std::int64_t bucket_of(const Matrix& qkv, const AttentionDims& dims, std::int64_t row,
                              std::int64_t head, std::int64_t round) {
  const std::int64_t half = dims.buckets / 2;
  double highest = -std::numeric_limits<double>::infinity();
  std::int64_t best = 0;
  for (std::int64_t b = 0; b < dims.buckets; ++b) {
    double dot = 0;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      dot += qkv.at(row, dims.k(head) + d) *
             static_cast<double>(dims.directions[static_cast<std::size_t>(
                 (round * half + b % half) * dims.head_dim + d)]);
    if (b >= half) dot = -dot;
    if (dot > highest) best = b;
    highest = std::max(highest, dot);
  }
  return best;
}

// How often rounds show each of the keys 0 ... i to query i.
inline std::vector<double> times_seen(const Matrix& qkv, const AttentionDims& dims,
                                      std::int64_t first, std::int64_t i, std::int64_t head) {
  std::vector<double> times(static_cast<std::size_t>(i + 1), 0.0);
  double all = 0;
  for (std::int64_t round = 0; round < dims.rounds; ++round) {
    const std::int64_t own = bucket_of(qkv, dims, first + i, head, round);
    std::int64_t left = dims.class_window;
    for (std::int64_t j = i - 1; j >= 0 && left > 0; --j) {
      if (bucket_of(qkv, dims, first + j, head, round) != own) continue;
      ++times[static_cast<std::size_t>(j)];
      ++all;
      --left;
    }
  }
  if (all == 0) times.back() = 1;
  return times;
}

// Probabilities of the keys 0 ... i of the sequence beginning at row `first`, for its query i;
// after them, those of the sinks, of the slots, which see `plain`, of summaries of blocks, and of
// groups.
inline std::vector<double> attention_probs(const Matrix& qkv, const Matrix& plain,
                                           const AttentionDims& dims, std::int64_t first,
                                           std::int64_t i, std::int64_t head) {
  std::vector<double> probs;
  std::vector<bool> blocks;
  if (dims.block > 0) blocks = blocks_in_sight(qkv, dims, first, i, head);
  std::vector<double> times(static_cast<std::size_t>(i + 1), 1.0);
  if (dims.rounds > 0) times = times_seen(qkv, dims, first, i, head);
  for (std::int64_t j = 0; j <= i; ++j) {
    double dot = 0;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      dot += qkv.at(first + i, dims.q(head) + d) * qkv.at(first + j, dims.k(head) + d);
    for (std::int64_t d = 0; dims.distance_weight.out > 0 && d < dims.head_dim; ++d) {
      const std::int64_t col = dims.q(head) + d;
      dot += dims.key_bias.value[col] * qkv.at(first + j, dims.k(head) + d) +
             (qkv.at(first + i, col) + dims.distance_bias.value[col]) *
                 dims.distance_key(head, i - j, d);
    }
    const bool seen =
        dims.block > 0 ? blocks[static_cast<std::size_t>(j / dims.block)] : dims.sees(head, i, j);
    probs.push_back(seen ? dot * dims.scale() + dims.by_distance(head, i - j) +
                               std::log(times[static_cast<std::size_t>(j)])
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
  for (std::int64_t b = 0; b < dims.whole_blocks(i) * dims.summaries; ++b) {
    const std::vector<double> mean =
        summary_of(qkv, dims, dims.summary_keys, first, b, dims.k(head));
    double dot = 0;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      dot += qkv.at(first + i, dims.q(head) + d) * mean[static_cast<std::size_t>(d)];
    probs.push_back(dot / std::sqrt(static_cast<double>(dims.head_dim)));
  }
  const auto [group, end_group] = dims.group_rows(qkv.rows, first, i);
  for (std::int64_t g = group; g < end_group; ++g) {
    double dot = 0;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      dot += qkv.at(first + i, dims.q(head) + d) * dims.groups.at(g, dims.k(head) + d);
    probs.push_back(dot / std::sqrt(static_cast<double>(dims.head_dim)));
  }
  const double largest = *std::max_element(probs.begin(), probs.end());
  if (std::isinf(largest)) return std::vector<double>(probs.size(), 0.0);  // it sees nothing
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
      const std::int64_t before = i + 1 + dims.sinks.in + dims.slot_values.out;
      const std::int64_t behind = before + dims.whole_blocks(i) * dims.summaries;
      const auto [group, end_group] = dims.group_rows(qkv.rows, t - i, i);
      for (std::int64_t g = group; g < end_group; ++g)
        for (std::int64_t d = 0; d < dims.head_dim; ++d)
          out.at(t, dims.q(head) + d) += probs[static_cast<std::size_t>(behind + g - group)] *
                                         dims.groups.at(g, dims.v(head) + d);
      for (std::size_t at = static_cast<std::size_t>(before); at < static_cast<std::size_t>(behind);
           ++at) {
        const std::vector<double> mean =
            summary_of(qkv, dims, dims.summary_values, t - i,
                       static_cast<std::int64_t>(at) - before, dims.v(head));
        for (std::int64_t d = 0; d < dims.head_dim; ++d)
          out.at(t, dims.q(head) + d) += probs[at] * mean[static_cast<std::size_t>(d)];
      }
    }
  return out;
}

// d_stopped: like qkv, added to: the gradients of keys and values that end at the weights.
inline Matrix attention_backward(const Matrix& dout, const Matrix& qkv, const AttentionDims& dims,
                                 Matrix& d_stopped) {
  Matrix dqkv(qkv.rows, qkv.cols);
  const Matrix plain = unturned(qkv, dims);
  Matrix d_plain(qkv.rows, qkv.cols);
  const double scale = dims.scale();
  for (std::int64_t t = 0; t < qkv.rows; ++t)
    for (std::int64_t head = 0; head < dims.num_heads; ++head) {
      const std::int64_t i = t % dims.length;
      const std::int64_t first = t - i;
      const std::vector<double> probs = attention_probs(qkv, plain, dims, first, i, head);
      std::vector<double> dprobs(probs.size());
      double mean_of_dprobs = 0;
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto at = static_cast<std::size_t>(j);
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          dprobs[at] += dout.at(t, dims.q(head) + d) * qkv.at(first + j, dims.v(head) + d);
          (dims.stops(i, j) ? d_stopped : dqkv).at(first + j, dims.v(head) + d) +=
              probs[at] * dout.at(t, dims.q(head) + d);
        }
        mean_of_dprobs += probs[at] * dprobs[at];
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
        mean_of_dprobs += probs[slot_at(slot)] * dprobs[slot_at(slot)];
      }
      const auto before = static_cast<std::size_t>(i + 1 + dims.sinks.in + dims.slot_values.out);
      const std::size_t behind =
          before + static_cast<std::size_t>(dims.whole_blocks(i) * dims.summaries);
      const auto [group, end_group] = dims.group_rows(qkv.rows, first, i);
      for (std::int64_t g = group; g < end_group; ++g) {
        const std::size_t at = behind + static_cast<std::size_t>(g - group);
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          dprobs[at] += dout.at(t, dims.q(head) + d) * dims.groups.at(g, dims.v(head) + d);
          dims.d_groups->at(g, dims.v(head) + d) += probs[at] * dout.at(t, dims.q(head) + d);
        }
        mean_of_dprobs += probs[at] * dprobs[at];
      }
      for (std::size_t at = before; at < behind; ++at) {
        const std::vector<double> mean =
            summary_of(qkv, dims, dims.summary_values, first,
                       static_cast<std::int64_t>(at - before), dims.v(head));
        for (std::int64_t d = 0; d < dims.head_dim; ++d)
          dprobs[at] += dout.at(t, dims.q(head) + d) * mean[static_cast<std::size_t>(d)];
        mean_of_dprobs += probs[at] * dprobs[at];
      }
      for (std::int64_t g = group; g < end_group; ++g) {
        const std::size_t at = behind + static_cast<std::size_t>(g - group);
        const double dscore = scale * probs[at] * (dprobs[at] - mean_of_dprobs);
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          dqkv.at(t, dims.q(head) + d) += dscore * dims.groups.at(g, dims.k(head) + d);
          dims.d_groups->at(g, dims.k(head) + d) += dscore * qkv.at(t, dims.q(head) + d);
        }
      }
      for (std::size_t at = before; at < behind; ++at) {
        const auto number = static_cast<std::int64_t>(at - before);
        const std::vector<double> key =
            summary_of(qkv, dims, dims.summary_keys, first, number, dims.k(head));
        const double dscore = scale * probs[at] * (dprobs[at] - mean_of_dprobs);
        const std::int64_t r = number % dims.summaries;
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          const double dkey = dscore * qkv.at(t, dims.q(head) + d);
          const double dvalue = probs[at] * dout.at(t, dims.q(head) + d);
          dqkv.at(t, dims.q(head) + d) += dscore * key[static_cast<std::size_t>(d)];
          for (std::int64_t u = 0; u < dims.block; ++u) {
            const std::int64_t row = first + number / dims.summaries * dims.block + u;
            dqkv.at(row, dims.k(head) + d) += dims.share(dims.summary_keys, r, u) * dkey;
            dqkv.at(row, dims.v(head) + d) += dims.share(dims.summary_values, r, u) * dvalue;
            if (dims.summary_keys.out == 0) continue;
            dims.summary_keys.gradient[r * dims.block + u] += dkey * qkv.at(row, dims.k(head) + d);
            dims.summary_values.gradient[r * dims.block + u] +=
                dvalue * qkv.at(row, dims.v(head) + d);
          }
        }
      }
      for (std::int64_t slot = 0; slot < dims.slot_keys.out; ++slot) {
        const double dscore =
            scale * probs[slot_at(slot)] * (dprobs[slot_at(slot)] - mean_of_dprobs);
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          const std::int64_t at = slot * dims.slot_keys.in + slot_col(dims, head) + d;
          d_plain.at(t, dims.q(head) + d) += dscore * dims.slot_keys.value[at];
          dims.slot_keys.gradient[at] += dscore * plain.at(t, dims.q(head) + d);
        }
      }
      for (std::int64_t sink = 0; sink < dims.sinks.in; ++sink)
        dims.sinks.gradient[head * dims.sinks.in + sink] -=
            probs[static_cast<std::size_t>(i + 1 + sink)] * mean_of_dprobs;
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto at = static_cast<std::size_t>(j);
        const double dbias = probs[at] * (dprobs[at] - mean_of_dprobs);
        if (dims.span.in > 0) dims.span.gradient[head] += dbias * dims.mask_slope(head, i - j);
        if (dims.relative.in > 0)
          dims.relative.gradient[head * dims.relative.in + dims.bucket(i - j)] += dbias;
        const double dscore = scale * dbias;
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          dqkv.at(t, dims.q(head) + d) += dscore * qkv.at(first + j, dims.k(head) + d);
          (dims.stops(i, j) ? d_stopped : dqkv).at(first + j, dims.k(head) + d) +=
              dscore * qkv.at(t, dims.q(head) + d);
        }
        for (std::int64_t d = 0; dims.distance_weight.out > 0 && d < dims.head_dim; ++d) {
          const std::int64_t col = dims.q(head) + d;
          const double key = qkv.at(first + j, dims.k(head) + d);
          const double distance_key = dims.distance_key(head, i - j, d);
          (dims.stops(i, j) ? d_stopped : dqkv).at(first + j, dims.k(head) + d) +=
              dscore * dims.key_bias.value[col];
          dqkv.at(t, col) += dscore * distance_key;
          dims.key_bias.gradient[col] += dscore * key;
          dims.distance_bias.gradient[col] += dscore * distance_key;
          for (std::int64_t n = 0; n < dims.distance_weight.in; ++n)
            dims.distance_weight
                .gradient[dims.distance_row(head, d) * dims.distance_weight.in + n] +=
                dscore * (qkv.at(t, col) + dims.distance_bias.value[col]) * dims.sine(i - j, n);
        }
      }
    }
  if (dims.slot_keys.out == 0) return dqkv;
  if (dims.turns) rotate(d_plain, dims, 1);
  add_to(dqkv, d_plain);
  return dqkv;
}

}  // namespace switchyard::reference_model
