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

#include "tests/support/reference_layers.hpp"

namespace switchyard::reference_model {

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

  // Transformer-XL's: [kv heads * head_dim, hidden] and [query columns, 1]; none if out is 0.
  Weight distance_weight = {}, key_bias = {}, distance_bias = {};
  double sine(std::int64_t distance, std::int64_t n) const {
    const std::int64_t half = distance_weight.in / 2;
    const double angle =
        static_cast<double>(distance) *
        std::pow(10000.0, -static_cast<double>(n % half) / static_cast<double>(half));
    return n < half ? std::sin(angle) : std::cos(angle);
  }
  // Element d of the key that a head has of a distance.
  double distance_key(std::int64_t head, std::int64_t distance, std::int64_t d) const {
    const std::int64_t row = distance_row(head, d);
    double sum = 0;
    for (std::int64_t n = 0; n < distance_weight.in; ++n)
      sum += distance_weight.value[row * distance_weight.in + n] * sine(distance, n);
    return sum;
  }
  std::int64_t distance_row(std::int64_t head, std::int64_t d) const {
    return head / (num_heads / num_kv_heads) * head_dim + d;
  }

  // By a pattern of blocks instead of window and globals.
  std::function<bool(std::int64_t head, std::int64_t query, std::int64_t key)> mask_of_blocks = {};
  // Transformer-XL: keys before the query's segment of so many tokens teach weights, not rows.
  std::int64_t stops_before = 0;

  bool sees(std::int64_t head, std::int64_t query, std::int64_t key) const {
    if (mask_of_blocks) return mask_of_blocks(head, query, key);
    return key <= query && (window == 0 || query - key < window || key < globals);
  }
  // Hierarchical attention: a window of whole blocks, and of the blocks before it those that are
  // chosen, and the mean of each.
  std::int64_t block = 0, window_blocks = 0, selected = 0;
  std::int64_t summaries = 0;                     // of each block
  Weight summary_keys = {}, summary_values = {};  // [summaries, block]; none if out is 0: the mean
  // The share of a block's token t in its summary r.
  double share(const Weight& weights, std::int64_t r, std::int64_t t) const {
    return weights.out > 0 ? weights.value[r * block + t] : 1 / static_cast<double>(block);
  }
  // Rows [q k v] of pooled groups, as many of each sequence, and which of them a query sees
  // (Compressive Transformer); gradients of them are added to d_groups.
  Matrix groups = {};
  Matrix* d_groups = nullptr;
  std::function<std::pair<std::int64_t, std::int64_t>(std::int64_t query)> seen_groups = {};
  // From the first to behind the last of them, as rows, for query i of the sequence at row `first`.
  std::pair<std::int64_t, std::int64_t> group_rows(std::int64_t rows, std::int64_t first,
                                                   std::int64_t i) const {
    if (!seen_groups) return {0, 0};
    const std::int64_t sequence = groups.rows / (rows / length) * (first / length);
    const auto [begin, end] = seen_groups(i);
    return {sequence + begin, sequence + end};
  }
  std::int64_t whole_blocks(std::int64_t query) const {
    return block > 0 ? std::max<std::int64_t>(query / block - window_blocks + 1, 0) : 0;
  }

  bool stops(std::int64_t query, std::int64_t key) const {
    return stops_before > 0 && key < query / stops_before * stops_before;
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
  for (std::int64_t b = whole; b <= i / dims.block; ++b) seen[static_cast<std::size_t>(b)] = true;
  for (std::int64_t j = 0; j < std::min(dims.selected, whole); ++j)
    seen[static_cast<std::size_t>(by_score[static_cast<std::size_t>(j)].second)] = true;
  return seen;
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
    probs.push_back(seen ? dot / std::sqrt(static_cast<double>(dims.head_dim)) +
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
  const double scale = 1 / std::sqrt(static_cast<double>(dims.head_dim));
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
