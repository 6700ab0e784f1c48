// Buckets of keys, and what queries see of their class, against the definition.
#include "kernels/attention/hash_classes.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/kernel_test.hpp"
#include "support/tested_device.hpp"

namespace switchyard::kernels {
namespace {

class HashClassesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (test::is_tested_on_card()) GTEST_SKIP() << "keys are hashed on the CPU";
  }
  static Tensor floats(std::int64_t rows, std::int64_t cols, double step) {
    Tensor tensor(test::tested(), Purpose::workspace, DType::f32, {rows, cols});
    for (std::int64_t i = 0; i < rows * cols; ++i)
      tensor->as<float>()[i] =
          static_cast<float>(std::sin(step * static_cast<double>(i * i % 1009)));
    return tensor;
  }
  static Tensor ints(Shape dims) { return {test::tested(), Purpose::workspace, DType::i32, dims}; }
};

TEST_F(HashClassesTest, TheBucketIsTheNearestDirectionOrItsOpposite) {
  constexpr std::int64_t rows = 50, heads = 3, dim = 5, buckets = 6, rounds = 2;
  const Tensor keys = floats(rows, heads * dim, 0.7);
  const Tensor directions = floats(rounds * buckets / 2, dim, 1.3);
  const Tensor found = ints({rows, rounds * heads});
  hash_keys(keys, dim, directions, buckets, found);
  std::set<std::int32_t> seen;
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t r = 0; r < rounds; ++r)
      for (std::int64_t h = 0; h < heads; ++h) {
        std::vector<double> scores(buckets);
        for (std::int64_t b = 0; b < buckets; ++b)
          for (std::int64_t d = 0; d < dim; ++d)
            scores[static_cast<std::size_t>(b)] +=
                (b < buckets / 2 ? 1.0 : -1.0) *
                static_cast<double>(keys->row<float>(row)[h * dim + d]) *
                static_cast<double>(directions->row<float>(r * buckets / 2 + b % (buckets / 2))[d]);
        const std::int32_t bucket = found->row<std::int32_t>(row)[r * heads + h];
        EXPECT_EQ(bucket, std::ranges::max_element(scores) - scores.begin()) << row;
        seen.insert(bucket);
      }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(buckets));
}

// Two duplicates far apart have one bucket in every round, whatever stands between them.
TEST_F(HashClassesTest, DuplicatesMeetInEveryRound) {
  constexpr std::int64_t rows = 256, dim = 8, buckets = 16, rounds = 4;
  const Tensor keys = floats(rows, dim, 0.9);
  std::copy_n(keys->row<float>(3), dim, keys->row<float>(250));
  const Tensor found = ints({rows, rounds});
  hash_keys(keys, dim, floats(rounds * buckets / 2, dim, 1.7), buckets, found);
  for (std::int64_t r = 0; r < rounds; ++r)
    EXPECT_EQ(found->row<std::int32_t>(3)[r], found->row<std::int32_t>(250)[r]);
}

TEST_F(HashClassesTest, AQuerySeesTheLastOfItsClassBeforeIt) {
  constexpr std::int64_t num_keys = 31, heads = 2, rounds = 2;
  KeyPattern pattern;
  pattern.num_buckets = 4;
  pattern.hash_rounds = rounds;
  pattern.class_window = 3;
  const std::vector<PositionRange> queries = {{2, 9}, {17, 14}};
  const Tensor buckets = ints({num_keys, rounds * heads}), begins = ints({1, num_keys});
  for (std::int64_t i = 0; i < buckets->numel(); ++i)
    buckets->as<std::int32_t>()[i] = static_cast<std::int32_t>(i * i % 29 % 4);
  for (std::int64_t i = 0; i < num_keys; ++i)
    begins->as<std::int32_t>()[i] = i < 11 ? 0 : i < 20 ? 11 : 20;
  const auto bucket = [&](std::int64_t key, std::int64_t round, std::int64_t head) {
    return buckets->row<std::int32_t>(key)[round * heads + head];
  };
  // Those of the last of the bucket and document before position p; none: an empty list.
  const auto wanted = [&](std::int64_t p, std::int64_t round, std::int64_t head) {
    std::vector<std::int64_t> keys;
    for (std::int64_t j = p - 1; j >= begins->as<std::int32_t>()[p] && std::ssize(keys) < 3; --j)
      if (bucket(j, round, head) == bucket(p, round, head)) keys.push_back(j);
    std::ranges::reverse(keys);
    return keys;
  };
  const Tensor query_rows = ints({23}), key_rows = ints({num_keys});
  const Tensor first = ints({23}), end = ints({23});
  std::int64_t num_alone = 0;
  for (std::int64_t head = 0; head < heads; ++head)
    for (std::int64_t round = 0; round < rounds; ++round) {
      sort_classes({pattern, queries, head, heads, begins}, buckets, round,
                   {query_rows, key_rows, first, end});
      std::vector<bool> is_there(23);
      for (std::int64_t place = 0; place < 23; ++place) {
        const std::int32_t row = query_rows->as<std::int32_t>()[place];
        is_there[static_cast<std::size_t>(row)] = true;
        const std::int64_t p = row < 9 ? 2 + row : 17 + row - 9;
        std::vector<std::int64_t> keys = wanted(p, round, head), got;
        if (round == 0 && keys.empty() && wanted(p, 1, head).empty()) {
          keys = {p};
          ++num_alone;
        }
        for (std::int64_t k = first->as<std::int32_t>()[place]; k < end->as<std::int32_t>()[place];
             ++k)
          got.push_back(key_rows->as<std::int32_t>()[k]);
        EXPECT_EQ(got, keys) << "position " << p << ", round " << round;
        if (place > 0) {
          EXPECT_GE(first->as<std::int32_t>()[place], first->as<std::int32_t>()[place - 1]);
          EXPECT_GE(end->as<std::int32_t>()[place], end->as<std::int32_t>()[place - 1]);
        }
      }
      EXPECT_TRUE(std::ranges::all_of(is_there, [](bool there) { return there; }));
    }
  EXPECT_GT(num_alone, 0);
}

}  // namespace
}  // namespace switchyard::kernels
