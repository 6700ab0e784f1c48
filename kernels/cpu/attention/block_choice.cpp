#include "kernels/cpu/attention/block_choice.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

// The blocks of block_mean, one piece each: body(row of the pooled, first row of the block).
template <class Body>
void for_each_block(std::int64_t num_rows, std::int64_t num_sequences, std::int64_t block,
                    std::int64_t cols, const Body& body) {
  const std::int64_t length = num_rows / num_sequences;
  const std::int64_t each = length / block;  // of a sequence
  parallel_rows(num_sequences * each, block * cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) body(b, b / each * length + b % each * block);
  });
}

template <class T>
void mean_of_blocks(const TensorView& rows, std::int64_t num_sequences, std::int64_t block,
                    const TensorView& pooled) {
  const std::int64_t cols = rows.cols();
  for_each_block(rows.rows(), num_sequences, block, cols, [&](std::int64_t b, std::int64_t first) {
    float* mean = pooled.row<float>(b);
    std::fill_n(mean, cols, 0.0f);
    for (std::int64_t row = first; row < first + block; ++row) {
      const T* values = rows.row<T>(row);
      for (std::int64_t c = 0; c < cols; ++c) mean[c] += value_of(values[c]);
    }
    for (std::int64_t c = 0; c < cols; ++c) mean[c] /= static_cast<float>(block);
  });
}

template <class T>
void sums_of_blocks(const TensorView& rows, std::int64_t num_sequences, const TensorView& weights,
                    const TensorView& sums) {
  const std::int64_t cols = rows.cols();
  for_each_block(rows.rows(), num_sequences, weights.cols(), cols,
                 [&](std::int64_t b, std::int64_t first) {
                   for (std::int64_t r = 0; r < weights.rows(); ++r) {
                     float* sum = sums.row<float>(b * weights.rows() + r);
                     std::fill_n(sum, cols, 0.0f);
                     for (std::int64_t t = 0; t < weights.cols(); ++t) {
                       const float weight = weights.row<float>(r)[t];
                       const T* values = rows.row<T>(first + t);
                       for (std::int64_t c = 0; c < cols; ++c)
                         sum[c] += weight * value_of(values[c]);
                     }
                   }
                 });
}

// d_weights[r, t]: over all blocks in their order.
template <class T>
void gradients_of_weights(const TensorView& d_sums, const TensorView& rows,
                          std::int64_t num_sequences, const TensorView& d_weights) {
  const std::int64_t block = d_weights.cols(), each = d_weights.rows();
  const std::int64_t length = rows.rows() / num_sequences;
  const std::int64_t blocks = length / block;  // of a sequence
  parallel_blocks(block * each, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t r = i / block, t = i % block;
      double sum = 0;
      for (std::int64_t b = 0; b < num_sequences * blocks; ++b) {
        const T* values = rows.row<T>(b / blocks * length + b % blocks * block + t);
        const float* gradient = d_sums.row<float>(b * each + r);
        float of_block = 0;
        for (std::int64_t c = 0; c < rows.cols(); ++c)
          of_block += gradient[c] * value_of(values[c]);
        sum += static_cast<double>(of_block);
      }
      d_weights.row<float>(r)[t] += static_cast<float>(sum);
    }
  });
}

// Lanes have sums of their own, so that the order does not depend on the instruction set.
float dot(const float* a, const float* b, std::int64_t n) {
  constexpr std::int64_t lanes = 16;
  std::array<float, lanes> sums{};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::int64_t l = 0; l < lanes; ++l)
      sums[static_cast<std::size_t>(l)] += a[i + l] * b[i + l];
  float sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (const float lane : sums) sum += lane;
  return sum;
}

// The best of the blocks first ... first + count - 1 by scores, ascending; -1 behind them. Of
// equals the earlier stays.
void write_best(const std::vector<float>& scores, std::int64_t first, std::int64_t num_choices,
                std::int32_t* chosen) {
  std::vector<std::int32_t> best;  // by falling score
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (std::ssize(best) == num_choices &&
        !(scores[i] > scores[static_cast<std::size_t>(best.back())]))
      continue;
    if (std::ssize(best) == num_choices) best.pop_back();
    const auto behind = std::ranges::find_if(best, [&](std::int32_t other) {
      return scores[i] > scores[static_cast<std::size_t>(other)];
    });
    best.insert(behind, static_cast<std::int32_t>(i));
  }
  std::ranges::sort(best);
  std::fill_n(chosen, num_choices, -1);
  for (std::size_t i = 0; i < best.size(); ++i)
    chosen[i] = best[i] + static_cast<std::int32_t>(first);
}

// What query rows begin ... end - 1 of a sequence choose.
template <class T>
struct Choosing {
  const BlockQueries& asking;
  std::int64_t head_dim;
  const TensorView& q;
  const TensorView& pooled;
  const TensorView& chosen;

  void choose(std::int64_t sequence, std::int64_t begin, std::int64_t end) const {
    const std::int64_t kv_heads = pooled.cols() / head_dim;
    const std::int64_t group = q.cols() / pooled.cols();
    const std::int64_t num_blocks = pooled.rows() / asking.num_sequences;
    const std::int64_t num_queries = num_positions(asking.queries);
    const std::int64_t num_choices = asking.pattern.chosen_blocks;
    const std::int32_t* begins = asking.document_begins.empty()
                                     ? nullptr
                                     : asking.document_begins.row<std::int32_t>(sequence);
    std::vector<float> query(static_cast<std::size_t>(head_dim)), scores;
    std::int64_t row = sequence * num_queries + begin;
    for (const PositionRange& range : slice_of(asking.queries, begin, end))
      for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
        const PositionRange whole =
            asking.pattern.whole_blocks(p, begins == nullptr ? 0 : begins[p]);
        for (std::int64_t g = 0; g < kv_heads; ++g) {
          std::ranges::fill(query, 0.0f);
          for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
            const T* of_head = q.row<T>(row) + h * head_dim;
            for (std::size_t d = 0; d < query.size(); ++d) query[d] += value_of(of_head[d]);
          }
          scores.clear();
          for (std::int64_t b = whole.begin; b < whole.end(); ++b)
            scores.push_back(dot(query.data(),
                                 pooled.row<float>(sequence * num_blocks + b) + g * head_dim,
                                 head_dim));
          write_best(scores, whole.begin, num_choices,
                     chosen.row<std::int32_t>(row) + g * num_choices);
        }
      }
  }
};

template <class T>
void choose_by(const BlockQueries& asking, std::int64_t head_dim, const TensorView& q,
               const TensorView& pooled, const TensorView& chosen) {
  const Choosing<T> choosing{asking, head_dim, q, pooled, chosen};
  constexpr std::int64_t queries_of_piece = 32;
  for (std::int64_t s = 0; s < asking.num_sequences; ++s)
    parallel_blocks(num_positions(asking.queries), queries_of_piece,
                    [&](std::int64_t begin, std::int64_t end) { choosing.choose(s, begin, end); });
}

}  // namespace

void block_mean(const TensorView& rows, std::int64_t num_sequences, std::int64_t block,
                const TensorView& pooled) {
  if (rows.dtype == DType::f32)
    mean_of_blocks<float>(rows, num_sequences, block, pooled);
  else
    mean_of_blocks<BFloat16>(rows, num_sequences, block, pooled);
}

void block_mean_backward(const TensorView& d_pooled, std::int64_t num_sequences, std::int64_t block,
                         const TensorView& d_rows) {
  const std::int64_t cols = d_rows.cols();
  for_each_block(d_rows.rows(), num_sequences, block, cols,
                 [&](std::int64_t b, std::int64_t first) {
                   const float* gradient = d_pooled.row<float>(b);
                   for (std::int64_t row = first; row < first + block; ++row)
                     for (std::int64_t c = 0; c < cols; ++c)
                       d_rows.row<float>(row)[c] += gradient[c] / static_cast<float>(block);
                 });
}

void block_sums(const TensorView& rows, std::int64_t num_sequences, const TensorView& weights,
                const TensorView& sums) {
  if (rows.dtype == DType::f32)
    sums_of_blocks<float>(rows, num_sequences, weights, sums);
  else
    sums_of_blocks<BFloat16>(rows, num_sequences, weights, sums);
}

void block_sums_backward(const TensorView& d_sums, const TensorView& rows,
                         std::int64_t num_sequences, const TensorView& weights,
                         const TensorView& d_rows, const TensorView& d_weights) {
  const std::int64_t cols = rows.cols();
  for_each_block(rows.rows(), num_sequences, weights.cols(), cols,
                 [&](std::int64_t b, std::int64_t first) {
                   for (std::int64_t t = 0; t < weights.cols(); ++t)
                     for (std::int64_t r = 0; r < weights.rows(); ++r) {
                       const float weight = weights.row<float>(r)[t];
                       const float* gradient = d_sums.row<float>(b * weights.rows() + r);
                       float* to = d_rows.row<float>(first + t);
                       for (std::int64_t c = 0; c < cols; ++c) to[c] += weight * gradient[c];
                     }
                 });
  if (rows.dtype == DType::f32)
    gradients_of_weights<float>(d_sums, rows, num_sequences, d_weights);
  else
    gradients_of_weights<BFloat16>(d_sums, rows, num_sequences, d_weights);
}

void fill_block_ranges(const BlockQueries& asking, const TensorView& first, const TensorView& end) {
  std::int32_t* firsts = first.as<std::int32_t>();
  std::int32_t* ends = end.as<std::int32_t>();
  for (std::int64_t s = 0; s < asking.num_sequences; ++s) {
    const std::int32_t* begins =
        asking.document_begins.empty() ? nullptr : asking.document_begins.row<std::int32_t>(s);
    for (const PositionRange& range : asking.queries)
      for (std::int64_t p = range.begin; p < range.end(); ++p) {
        const PositionRange whole =
            asking.pattern.whole_blocks(p, begins == nullptr ? 0 : begins[p]);
        *firsts++ = static_cast<std::int32_t>(whole.begin * asking.pattern.summaries);
        *ends++ = static_cast<std::int32_t>(whole.end() * asking.pattern.summaries);
      }
  }
}

void choose_blocks(const BlockQueries& asking, std::int64_t head_dim, const TensorView& q,
                   const TensorView& pooled_keys, const TensorView& chosen) {
  if (q.dtype == DType::f32)
    choose_by<float>(asking, head_dim, q, pooled_keys, chosen);
  else
    choose_by<BFloat16>(asking, head_dim, q, pooled_keys, chosen);
}

void sort_choices(const TensorView& chosen, std::int64_t block, std::int64_t num_blocks,
                  const ChoicePlaces& written) {
  std::vector<std::int32_t> next(static_cast<std::size_t>(num_blocks) + 2, 0);
  const auto bin = [&](std::int32_t choice) {  // without a block: the last
    return static_cast<std::size_t>(choice < 0 ? num_blocks : choice);
  };
  for (std::int64_t row = 0; row < chosen.rows(); ++row)
    for (std::int64_t j = 0; j < chosen.cols(); ++j)
      ++next[bin(chosen.row<std::int32_t>(row)[j]) + 1];
  for (std::size_t b = 1; b < next.size(); ++b) next[b] += next[b - 1];
  std::int32_t* place_of = written.places.as<std::int32_t>();
  for (std::int64_t row = 0; row < chosen.rows(); ++row)
    for (std::int64_t j = 0; j < chosen.cols(); ++j) {
      const std::size_t b = bin(chosen.row<std::int32_t>(row)[j]);
      const std::int32_t place = next[b]++;
      const auto first = static_cast<std::int32_t>(static_cast<std::int64_t>(b) * block);
      const bool has_block = static_cast<std::int64_t>(b) < num_blocks;
      *place_of++ = place;
      written.query_rows.as<std::int32_t>()[place] = static_cast<std::int32_t>(row);
      written.first.as<std::int32_t>()[place] = first;
      written.end.as<std::int32_t>()[place] =
          has_block ? first + static_cast<std::int32_t>(block) : first;
    }
}

void merge_choices(const TensorView& partial, const TensorView& partial_lse,
                   const TensorView& places, const TensorView& out, const TensorView& lse) {
  const std::int64_t num_choices = places.numel() / out.rows();
  const std::int64_t head_dim = out.cols() / lse.cols();
  parallel_rows(out.rows(), out.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int32_t* place = places.as<std::int32_t>() + row * num_choices;
      for (std::int64_t h = 0; h < lse.cols(); ++h) {
        float& total = lse.row<float>(row)[h];
        float most = total;
        for (std::int64_t j = 0; j < num_choices; ++j)
          most = std::max(most, partial_lse.row<float>(place[j])[h]);
        double sum = std::exp(static_cast<double>(total) - static_cast<double>(most));
        for (std::int64_t j = 0; j < num_choices; ++j)
          sum += std::exp(static_cast<double>(partial_lse.row<float>(place[j])[h]) -
                          static_cast<double>(most));
        const double joined = static_cast<double>(most) + std::log(sum);
        const auto share = [&](float part) {
          return static_cast<float>(std::exp(static_cast<double>(part) - joined));
        };
        float* values = out.row<float>(row) + h * head_dim;
        const float own = share(total);
        for (std::int64_t d = 0; d < head_dim; ++d) values[d] *= own;
        for (std::int64_t j = 0; j < num_choices; ++j) {
          const float weight = share(partial_lse.row<float>(place[j])[h]);
          if (weight == 0) continue;  // without a block
          const float* joining = partial.row<float>(place[j]) + h * head_dim;
          for (std::int64_t d = 0; d < head_dim; ++d) values[d] += weight * joining[d];
        }
        total = static_cast<float>(joined);
      }
    }
  });
}

void add_choices(const TensorView& partial, const TensorView& places, const TensorView& rows) {
  const std::int64_t num_choices = places.numel() / rows.rows();
  parallel_rows(rows.rows(), rows.cols() * num_choices, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int32_t* place = places.as<std::int32_t>() + row * num_choices;
      float* values = rows.row<float>(row);
      for (std::int64_t j = 0; j < num_choices; ++j) {
        const float* joining = partial.row<float>(place[j]);
        for (std::int64_t c = 0; c < rows.cols(); ++c) values[c] += joining[c];
      }
    }
  });
}

}  // namespace switchyard::kernels::cpu
