#include "kernels/cpu/attention/hash_classes.hpp"

#include <algorithm>
#include <vector>

#include "kernels/cpu/attention/block_scores.hpp"
#include "kernels/cpu/element.hpp"
#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Of the scores of half the buckets and their opposites: the first of the highest. What is no
// number is in bucket 0.
std::int32_t bucket_of(const float* scores, std::int64_t half) {
  std::int64_t most = 0, least = 0;
  for (std::int64_t b = 1; b < half; ++b) {
    if (scores[b] > scores[most]) most = b;
    if (scores[b] < scores[least]) least = b;
  }
  return static_cast<std::int32_t>(-scores[least] > scores[most] ? half + least : most);
}

// The directions of all rounds, dim after dim.
BlockMeans by_dim(const TensorView& directions) {
  BlockMeans columns(directions.cols(), directions.rows());
  for (std::int64_t r = 0; r < directions.rows(); ++r)
    for (std::int64_t d = 0; d < directions.cols(); ++d)
      columns.values[static_cast<std::size_t>(d * columns.stride + r)] =
          directions.row<float>(r)[d];
  return columns;
}

template <class T>
void hash_rows(const TensorView& keys, const BlockMeans& directions, std::int64_t num_directions,
               std::int64_t half, const TensorView& buckets, std::int64_t begin, std::int64_t end) {
  const std::int64_t dim = directions.head_dim, heads = keys.cols() / dim;
  std::vector<float> key(static_cast<std::size_t>(dim));
  std::vector<float> scores(static_cast<std::size_t>(directions.stride));
  for (std::int64_t row = begin; row < end; ++row)
    for (std::int64_t h = 0; h < heads; ++h) {
      const T* from = keys.row<T>(row) + h * dim;
      for (std::size_t d = 0; d < key.size(); ++d) key[d] = value_of(from[d]);
      score_blocks(key.data(), directions, 0, num_directions, scores.data());
      for (std::int64_t r = 0; r < num_directions / half; ++r)
        buckets.row<std::int32_t>(row)[r * heads + h] = bucket_of(scores.data() + r * half, half);
    }
}

// What one head of one sequence sorts.
struct Sorting {
  const ClassQueries& asking;
  const TensorView& buckets;

  std::int32_t bucket(std::int64_t round, std::int64_t key) const {
    return buckets.row<std::int32_t>(key)[round * asking.num_heads + asking.head];
  }
  std::int32_t document_begin(std::int64_t position) const {
    return asking.document_begins.empty() ? 0
                                          : asking.document_begins.row<std::int32_t>(0)[position];
  }
};

// Whether a key has no other of its bucket and document before it, in any round.
std::vector<bool> alone(const Sorting& sorting) {
  const std::int64_t num_keys = sorting.buckets.rows();
  std::vector<bool> is_alone(static_cast<std::size_t>(num_keys), true);
  for (std::int64_t round = 0; round < sorting.asking.pattern.hash_rounds; ++round) {
    std::vector<std::int64_t> last(static_cast<std::size_t>(sorting.asking.pattern.num_buckets),
                                   -1);
    for (std::int64_t key = 0; key < num_keys; ++key) {
      std::int64_t& before = last[static_cast<std::size_t>(sorting.bucket(round, key))];
      if (before >= sorting.document_begin(key)) is_alone[static_cast<std::size_t>(key)] = false;
      before = key;
    }
  }
  return is_alone;
}

// The place of the first of each bucket, and the end.
std::vector<std::int32_t> begins_of(const Sorting& sorting, std::int64_t round,
                                    std::span<const PositionRange> positions) {
  std::vector<std::int32_t> begins(static_cast<std::size_t>(sorting.asking.pattern.num_buckets) + 1,
                                   0);
  for (const PositionRange& range : positions)
    for (std::int64_t p = range.begin; p < range.end(); ++p)
      ++begins[static_cast<std::size_t>(sorting.bucket(round, p)) + 1];
  for (std::size_t b = 1; b < begins.size(); ++b) begins[b] += begins[b - 1];
  return begins;
}

}  // namespace

void hash_keys(const TensorView& keys, std::int64_t head_dim, const TensorView& directions,
               std::int64_t num_buckets, const TensorView& buckets) {
  const BlockMeans columns = by_dim(directions);
  const auto hash = keys.dtype == DType::f32 ? hash_rows<float> : hash_rows<BFloat16>;
  constexpr std::int64_t rows_of_piece = 64;
  parallel_blocks(keys.rows(), rows_of_piece, [&](std::int64_t begin, std::int64_t end) {
    hash(keys, columns, directions.rows(), num_buckets / 2, buckets, begin, end);
  });
  static_cast<void>(head_dim);
}

void sort_classes(const ClassQueries& asking, const TensorView& buckets, std::int64_t round,
                  const ClassPlaces& written) {
  const Sorting sorting{asking, buckets};
  const std::int64_t num_keys = buckets.rows();
  const PositionRange all{0, num_keys};
  const std::vector<std::int32_t> begins = begins_of(sorting, round, {&all, 1});
  std::vector<std::int32_t> next = begins;
  std::vector<std::int32_t> place_of(static_cast<std::size_t>(num_keys));
  // By bucket: the place of the first key of the document that is under way.
  std::vector<std::int32_t> first_of(static_cast<std::size_t>(num_keys));
  std::vector<std::int32_t> document_first(begins.size(), 0);
  std::vector<std::int32_t> document(begins.size(), -1);
  for (std::int64_t key = 0; key < num_keys; ++key) {
    const auto b = static_cast<std::size_t>(sorting.bucket(round, key));
    const std::int32_t place = next[b]++;
    written.key_rows.as<std::int32_t>()[place] = static_cast<std::int32_t>(key);
    place_of[static_cast<std::size_t>(key)] = place;
    if (document[b] != sorting.document_begin(key)) document_first[b] = place;
    document[b] = sorting.document_begin(key);
    first_of[static_cast<std::size_t>(key)] = document_first[b];
  }
  const std::vector<bool> is_alone = round == 0 ? alone(sorting) : std::vector<bool>();
  std::vector<std::int32_t> next_query = begins_of(sorting, round, asking.queries);
  std::int32_t row = 0;
  for (const PositionRange& range : asking.queries)
    for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
      const auto at = static_cast<std::size_t>(p);
      const std::int32_t to = next_query[static_cast<std::size_t>(sorting.bucket(round, p))]++;
      const std::int32_t own = place_of[at];
      const bool sees_itself = round == 0 && is_alone[at];
      written.query_rows.as<std::int32_t>()[to] = row;
      written.first.as<std::int32_t>()[to] =
          std::max(own - static_cast<std::int32_t>(asking.pattern.class_window), first_of[at]);
      written.end.as<std::int32_t>()[to] = own + (sees_itself ? 1 : 0);
    }
}

}  // namespace switchyard::kernels::cpu
