#include "tensor/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace switchyard {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known answers published with Random123 for philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(random_words(RandomKey{0, 0}, Words{0, 0, 0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(random_words(RandomKey{ones, ones}, Words{ones, ones, ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // Digits of pi.
  EXPECT_EQ(random_words(RandomKey{0xa4093822, 0x299f31d0},
                         Words{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, LongCountersAreTheirHalves) {
  const RandomKey key{1, 2};
  EXPECT_EQ(random_words(key, 0x0000000500000004ull, 0x0000000700000006ull),
            random_words(key, Words{4, 5, 6, 7}));
}

TEST(RandomKey, SeedsAndPurposesGiveDifferentStreams) {
  std::set<std::pair<std::uint32_t, std::uint32_t>> keys;
  for (std::uint64_t seed = 0; seed < 50; ++seed)
    for (const char* purpose : {"init layers.0", "init layers.1", "dropout", ""}) {
      const RandomKey key = random_key(seed, purpose);
      keys.insert({key.seed, key.stream});
    }
  EXPECT_EQ(keys.size(), 200u);
  EXPECT_EQ(random_key(7, "a").stream, random_key(7, "a").stream);
}

TEST(Uniform, StaysBelowOne) {
  EXPECT_EQ(uniform(0), 0.0f);
  EXPECT_LT(uniform(0xffffffff), 1.0f);
  EXPECT_EQ(uniform(0x80000000), 0.5f);
}

TEST(Normals, HaveTheMomentsOfTheNormalDistribution) {
  constexpr int groups = 50000;
  double sum = 0, squares = 0, fourth = 0, product = 0;
  for (std::uint32_t i = 0; i < groups; ++i) {
    const auto values = normals(random_words(RandomKey{3, 4}, i, 0));
    for (float value : values) {
      const double v = static_cast<double>(value);
      ASSERT_TRUE(std::isfinite(v));
      sum += v;
      squares += v * v;
      fourth += v * v * v * v;
    }
    product += static_cast<double>(values[0]) * static_cast<double>(values[1]);
  }
  constexpr double n = 4.0 * groups;  // five standard errors each
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2 / n));
  EXPECT_NEAR(fourth / n, 3, 5 * std::sqrt(96 / n));
  EXPECT_NEAR(product / groups, 0, 5 / std::sqrt(groups));
  // The word that maps to the edge of the logarithm's range.
  for (float value : normals({0, 0, 0xffffffff, 0xffffffff})) EXPECT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace switchyard
