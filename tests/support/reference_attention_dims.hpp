// What an attention layer of the double-precision oracle is told: sizes, who sees whom, what scores
// are raised by, and the weights that are its own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
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
  bool has_window = true;                         // false: the blocks before it alone
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

  // Attention within classes: directions of so many rounds [rounds * buckets / 2, head_dim], and
  // how many of the last keys of a bucket are seen.
  std::vector<float> directions = {};
  std::int64_t buckets = 0, rounds = 0, class_window = 0;
  double scale() const { return rounds > 0 ? 1 : 1 / std::sqrt(static_cast<double>(head_dim)); }

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

}  // namespace switchyard::reference_model
