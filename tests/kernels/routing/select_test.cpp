// The choice of experts by biased scores and within the best groups, against a plain reference.
#include "kernels/routing/select.hpp"

#include <cmath>
#include <limits>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::GroupScore;
using kernels::Selection;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct Groups {
  std::size_t count = 1, top = 1;
  GroupScore score = GroupScore::best;
};

// The reference: biased scores in fp32, as the definition has them, and two sorted choices.
std::vector<std::int32_t> reference_choice(Doubles row, const Doubles& bias, const Groups& groups,
                                           std::size_t k) {
  for (std::size_t e = 0; e < row.size() && !bias.empty(); ++e)
    row[e] = static_cast<double>(static_cast<float>(row[e]) + static_cast<float>(bias[e]));
  const std::size_t size = row.size() / groups.count;
  Doubles of_group;
  for (std::size_t g = 0; g < groups.count; ++g) {
    const double* group = &row[g * size];
    const auto best = reference::largest(group, size, std::min<std::size_t>(2, size));
    double score = group[best[0]];
    if (groups.score == GroupScore::best_two && size > 1)
      score = static_cast<double>(static_cast<float>(score) + static_cast<float>(group[best[1]]));
    of_group.push_back(score);
  }
  const auto chosen = reference::largest(of_group.data(), groups.count, groups.top);
  for (std::size_t e = 0; e < row.size(); ++e)
    if (std::find(chosen.begin(), chosen.end(), static_cast<std::int32_t>(e / size)) ==
        chosen.end())
      row[e] = -infinity;
  return reference::largest(row.data(), row.size(), k);
}

std::vector<std::int32_t> choose(const Operand& scores, const Operand* bias, const Groups& groups,
                                 std::int64_t k) {
  const auto slots = static_cast<std::size_t>(scores.view().rows() * k);
  const Operand indices = Operand::of_ints(std::vector<std::int32_t>(slots, -7), k);
  Selection selection{.num_groups = static_cast<std::int64_t>(groups.count),
                      .top_groups = static_cast<std::int64_t>(groups.top),
                      .group_score = groups.score};
  if (bias != nullptr) selection.bias = bias->view();
  kernels::select_top_k(scores, indices, selection);
  return indices.ints();
}

TEST(Selection, IsByBiasedScoresWithinTheBestGroups) {
  for (const std::size_t experts : {4, 12, 64, 130, 320})
    for (const Groups& groups : {Groups{}, Groups{2, 1}, Groups{2, 1, GroupScore::best_two},
                                 Groups{4, 3, GroupScore::best_two}, Groups{10, 4}})
      for (const bool is_biased : {false, true})
        for (const std::size_t k : {1, 4}) {
          if (experts % groups.count != 0 || k > experts / groups.count * groups.top) continue;
          const Operand scores(DType::f32, 33, static_cast<std::int64_t>(experts), 3, 2);
          Doubles values = scores.values();
          for (double& value : values) value = std::round(value * 16) / 16;  // ties
          scores.set(values);
          const Operand bias = vector_of(static_cast<std::int64_t>(experts), 5);
          std::vector<std::int32_t> wanted;
          for (std::size_t t = 0; t < 33; ++t) {
            const auto row = reference_choice(
                Doubles(values.begin() + static_cast<std::ptrdiff_t>(t * experts),
                        values.begin() + static_cast<std::ptrdiff_t>((t + 1) * experts)),
                is_biased ? bias.values() : Doubles{}, groups, k);
            wanted.insert(wanted.end(), row.begin(), row.end());
          }
          EXPECT_EQ(
              choose(scores, is_biased ? &bias : nullptr, groups, static_cast<std::int64_t>(k)),
              wanted)
              << experts << " experts, " << groups.count << " groups";
        }
}

// With a bias below all scores the experts of excluded groups, were they 0 as in some programs,
// would be the best.
TEST(Selection, LeavesGroupsOutWhateverTheBias) {
  const Operand scores(DType::f32, 1, 6), bias = vector_of(6);
  scores.set({0.1, 0.2, 0.9, 0.3, 0.5, 0.4});
  bias.set(Doubles(6, -3));
  EXPECT_EQ(choose(scores, &bias, {3, 1}, 2), (std::vector<std::int32_t>{2, 3}));
  EXPECT_EQ(choose(scores, &bias, {3, 1, GroupScore::best_two}, 2),
            (std::vector<std::int32_t>{2, 3}));
  scores.set({0.1, 0.2, 0.9, -0.3, 0.5, 0.4});
  EXPECT_EQ(choose(scores, &bias, {3, 1, GroupScore::best_two}, 2),
            (std::vector<std::int32_t>{4, 5}));
}

// The bias decides, the scores are not touched.
TEST(Selection, BiasMovesTheChoiceAlone) {
  const Operand scores(DType::f32, 2, 4), bias = vector_of(4);
  const Doubles values = {0.4, 0.3, 0.2, 0.1, 0.1, 0.2, 0.3, 0.4};
  scores.set(values);
  const Doubles before = scores.values();
  bias.set({-0.25, 0, 0, 0.25});
  EXPECT_EQ(choose(scores, &bias, {}, 2), (std::vector<std::int32_t>{3, 1, 3, 2}));
  EXPECT_EQ(scores.values(), before);
}

TEST(Selection, OfWhatHasNoOrderAreDifferentExperts) {
  const Operand scores(DType::f32, 1, 6);
  scores.set({nan, nan, 1, nan, 0.5, 0.25});
  EXPECT_EQ(choose(scores, nullptr, {3, 1, GroupScore::best_two}, 2),
            (std::vector<std::int32_t>{4, 5}));
  EXPECT_EQ(choose(scores, nullptr, {3, 1}, 2), (std::vector<std::int32_t>{2, 0}));
  scores.set(Doubles(6, nan));
  EXPECT_EQ(choose(scores, nullptr, {3, 2}, 3), (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(Selection, RefusesGroupsThatDoNotFit) {
  const Operand scores(DType::f32, 1, 6);
  expect_refused([&] { choose(scores, nullptr, {4, 1}, 1); });
  expect_refused([&] { choose(scores, nullptr, {3, 4}, 1); });
  expect_refused([&] { choose(scores, nullptr, {3, 1}, 3); });
}

}  // namespace
}  // namespace switchyard::test
