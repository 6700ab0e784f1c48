#include "tensor/arena.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(ArenaTest, TakesTheSmallestHoleThatFits) {
  Arena arena(64);
  const std::int64_t wide = arena.take(300), first = arena.take(1), narrow = arena.take(100);
  EXPECT_EQ(arena.take(64), 320 + 64 + 128);
  EXPECT_EQ(wide, 0);
  EXPECT_EQ(first, 320);
  EXPECT_EQ(narrow, 384);
  arena.give_back(wide, 300);
  arena.give_back(narrow, 100);
  EXPECT_EQ(arena.next(65), 384);
  EXPECT_EQ(arena.take(65), 384);
  EXPECT_EQ(arena.take(129), 0);
  EXPECT_EQ(arena.take(128), 192) << "what is left of the hole";
}

TEST(ArenaTest, NeighboursJoin) {
  Arena arena(64);
  for (int i = 0; i < 4; ++i) arena.take(64);
  arena.give_back(0, 64);
  arena.give_back(128, 64);
  arena.give_back(64, 64);
  EXPECT_EQ(arena.next(192), 0);
  arena.give_back(192, 64);
  EXPECT_EQ(arena.next(10'000), 0) << "all is free again";
  EXPECT_EQ(arena.in_use(), 0);
  EXPECT_EQ(arena.high_water(), 256);
}

TEST(ArenaTest, RandomUseNeverOverlapsAndRepeats) {
  Arena arena(64), again(64);
  std::mt19937 random(7);
  std::map<std::int64_t, std::int64_t> taken;  // offset -> bytes
  for (int i = 0; i < 5000; ++i) {
    if (taken.empty() || random() % 5 < 3) {
      const auto bytes = static_cast<std::int64_t>(random() % 3000 + 1);
      const std::int64_t offset = arena.take(bytes);
      ASSERT_EQ(offset % 64, 0);
      ASSERT_EQ(again.take(bytes), offset);
      const auto after = taken.lower_bound(offset);
      ASSERT_TRUE(after == taken.end() || after->first >= offset + bytes);
      if (after != taken.begin()) {
        const auto before = std::prev(after);
        ASSERT_LE(before->first + before->second, offset);
      }
      ASSERT_LE(offset + bytes, arena.high_water());
      taken.emplace(offset, bytes);
    } else {
      const auto chosen = std::next(taken.begin(), static_cast<long>(random() % taken.size()));
      arena.give_back(chosen->first, chosen->second);
      again.give_back(chosen->first, chosen->second);
      taken.erase(chosen);
    }
  }
}

TEST(ArenaTest, GivingBackTwiceIsADefect) {
  Arena arena(64);
  arena.take(64);
  arena.take(64);
  arena.give_back(0, 64);
  EXPECT_THROW(arena.give_back(0, 64), InternalError);
}

}  // namespace
}  // namespace switchyard
