#include "kernels/cpu/attention/block_choice.hpp"

#include <algorithm>
#include <vector>

#include "kernels/cpu/attention/block_scores.hpp"
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

// What query rows begin ... end - 1 of a sequence choose for a kv head.
template <class T>
struct Choosing {
  const BlockQueries& asking;
  std::int64_t group;
  const TensorView& q;
  const TensorView& chosen;

  void choose(std::int64_t sequence, std::int64_t kv_head, const BlockMeans& means,
              std::int64_t begin, std::int64_t end) const {
    const std::int64_t num_queries = num_positions(asking.queries);
    const std::int64_t num_choices = asking.pattern.chosen_blocks;
    const std::int32_t* begins = asking.document_begins.empty()
                                     ? nullptr
                                     : asking.document_begins.row<std::int32_t>(sequence);
    std::vector<float> query(static_cast<std::size_t>(means.head_dim));
    std::vector<float> scores(static_cast<std::size_t>(means.stride));
    std::int64_t row = sequence * num_queries + begin;
    for (const PositionRange& range : slice_of(asking.queries, begin, end))
      for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
        const PositionRange whole =
            asking.pattern.whole_blocks(p, begins == nullptr ? 0 : begins[p]);
        std::ranges::fill(query, 0.0f);
        for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
          const T* of_head = q.row<T>(row) + h * means.head_dim;
          for (std::size_t d = 0; d < query.size(); ++d) query[d] += value_of(of_head[d]);
        }
        choose_best(query.data(), means, whole.begin, whole.count, num_choices, scores.data(),
                    chosen.row<std::int32_t>(row) + kv_head * num_choices);
      }
  }
};

// Of a kv head of a sequence, dim after dim.
BlockMeans means_of(const TensorView& pooled, std::int64_t first_row, std::int64_t num_blocks,
                    std::int64_t first_col, std::int64_t head_dim) {
  BlockMeans means(head_dim, num_blocks);
  for (std::int64_t b = 0; b < num_blocks; ++b) {
    const float* mean = pooled.row<float>(first_row + b) + first_col;
    for (std::int64_t d = 0; d < head_dim; ++d)
      means.values[static_cast<std::size_t>(d * means.stride + b)] = mean[d];
  }
  return means;
}

template <class T>
void choose_by(const BlockQueries& asking, std::int64_t head_dim, const TensorView& q,
               const TensorView& pooled, const TensorView& chosen) {
  const Choosing<T> choosing{asking, q.cols() / pooled.cols(), q, chosen};
  constexpr std::int64_t queries_of_piece = 256;
  const std::int64_t num_blocks = pooled.rows() / asking.num_sequences;
  for (std::int64_t s = 0; s < asking.num_sequences; ++s)
    for (std::int64_t g = 0; g < pooled.cols() / head_dim; ++g) {
      const BlockMeans means = means_of(pooled, s * num_blocks, num_blocks, g * head_dim, head_dim);
      parallel_blocks(
          num_positions(asking.queries), queries_of_piece,
          [&](std::int64_t begin, std::int64_t end) { choosing.choose(s, g, means, begin, end); });
    }
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

}  // namespace switchyard::kernels::cpu
