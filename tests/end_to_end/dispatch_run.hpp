// Small runs with several ways for rows to travel, and what is compared of them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {

inline constexpr std::int64_t part_rows = 2048;
inline constexpr std::int64_t length = 240;  // divides by 1, 2, 3 and 4 ranks that share sequences
inline constexpr std::int64_t sequences_of_rank = 6;  // of a rank

struct DispatchCase {
  std::string name;
  std::function<void(Config&)> change;
  int least_ranks = 1;
};

// So many tokens that a rank which gets all of them has several parts; the first expert's rank
// does.
inline Config base_config() {
  Config config = small_config(world().size());
  config.model.sequence_length = length;
  config.train = {.num_steps = 1,
                  .global_batch = sequences_of_rank * world().size(),
                  .micro_batch = sequences_of_rank};
  config.experts.top_k = 1;
  config.experts.router.kind = RouterKind::imbalanced;
  config.experts.router.imbalance = 5;
  return config;
}

inline DispatchConfig summed(std::int64_t ranks_per_node) {
  return {.kind = DispatchKind::hierarchical,
          .returns = DispatchReturn::summed,
          .ranks_per_node = ranks_per_node};
}

inline void expect_same_bits(SmallRun& run, SmallRun& expected) {
  const std::vector<Bucket>& buckets = run.trainer.store().buckets();
  const std::vector<Bucket>& wanted = expected.trainer.store().buckets();
  ASSERT_EQ(buckets.size(), wanted.size());
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    using Views = std::pair<TensorView, TensorView>;
    for (const auto& [mine, theirs] : {Views(buckets[b].values, wanted[b].values),
                                       Views(buckets[b].gradients, wanted[b].gradients)}) {
      if (theirs.empty()) continue;
      ASSERT_EQ(mine.num_bytes(), theirs.num_bytes());
      EXPECT_EQ(std::memcmp(mine.data, theirs.data, static_cast<std::size_t>(theirs.num_bytes())),
                0)
          << "bucket " << b;
    }
  }
}

inline double norm(const TensorView& view) {
  double sum = 0;
  const TensorView flat = view.flat();
  for (const float value : flat.span<float>()) sum += double{value} * value;
  return std::sqrt(sum);
}

// Of all gradients of this rank, beside those of unpacked rows.
inline double gradient_difference(SmallRun& run, SmallRun& expected) {
  const std::vector<Bucket>& buckets = run.trainer.store().buckets();
  const std::vector<Bucket>& wanted = expected.trainer.store().buckets();
  double difference = 0, whole = 0;
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    if (wanted[b].gradients.empty()) continue;
    const auto mine = buckets[b].gradients->span<float>(),
               theirs = wanted[b].gradients->span<float>();
    for (std::size_t i = 0; i < mine.size(); ++i)
      difference += std::pow(double{mine[i]} - theirs[i], 2);
    whole += std::pow(norm(wanted[b].gradients), 2);
  }
  return std::sqrt(difference / whole);
}

}  // namespace switchyard::test
