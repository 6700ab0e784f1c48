#include "kernels/attention/hash_classes.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/cpu/attention/hash_classes.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

void hash_keys(const TensorView& keys, std::int64_t head_dim, const TensorView& directions,
               std::int64_t num_buckets, const TensorView& buckets) {
  expect(is_float(keys.dtype) && head_dim > 0 && keys.cols() % head_dim == 0,
         "keys of whole heads");
  expect(num_buckets >= 2 && num_buckets % 2 == 0 && directions.rows() % (num_buckets / 2) == 0,
         "an even number of buckets, and directions of whole rounds");
  expect_matrix(directions, DType::f32, directions.rows(), head_dim, "directions: f32 [., D]");
  const std::int64_t rounds = directions.rows() / (num_buckets / 2);
  expect_matrix(buckets, DType::i32, keys.rows(), keys.cols() / head_dim * rounds,
                "buckets: i32 [keys, rounds * heads]");
  if (buckets.empty()) return;
  dispatch(
      *keys.device, [&] { cpu::hash_keys(keys, head_dim, directions, num_buckets, buckets); },
      [&] { plan::hash_keys(keys, directions, buckets); });
}

void sort_classes(const ClassQueries& asking, const TensorView& buckets, std::int64_t round,
                  const ClassPlaces& written) {
  const std::int64_t num_queries = num_positions(asking.queries);
  expect(asking.pattern.hash_rounds > round && asking.pattern.num_buckets > 0 &&
             asking.pattern.class_window > 0,
         "a pattern of classes");
  expect_matrix(buckets, DType::i32, buckets.rows(), asking.num_heads * asking.pattern.hash_rounds,
                "buckets: i32 [keys, rounds * heads]");
  for (const TensorView* each : {&written.query_rows, &written.first, &written.end})
    expect_vector(*each, DType::i32, num_queries, "places: i32 [queries]");
  expect_vector(written.key_rows, DType::i32, buckets.rows(), "places: i32 [keys]");
  if (num_queries == 0) return;
  dispatch(
      *buckets.device, [&] { cpu::sort_classes(asking, buckets, round, written); },
      [&] { plan::sort_classes(written.query_rows, written.key_rows); });
}

double count_class_pairs(const KeyPattern& pattern, std::span<const PositionRange> queries,
                         std::int64_t num_sequences) {
  double pairs = 0;
  for (const PositionRange& range : queries)
    for (std::int64_t p = range.begin; p < range.end(); ++p)
      pairs += static_cast<double>(
          std::max<std::int64_t>(1, std::min(p / pattern.num_buckets, pattern.class_window)));
  return pairs * static_cast<double>(num_sequences);
}

}  // namespace switchyard::kernels
