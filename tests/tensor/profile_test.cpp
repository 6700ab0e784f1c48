#include "tensor/profile.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace switchyard {
namespace {

void wait(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

TEST(Profile, TheOuterClockStandsStillInsideAnInnerScope) {
  const auto start = std::chrono::steady_clock::now();
  Profile profile;
  {
    const Profile::Scope outer(profile, Part::experts);
    wait(2);
    {
      const Profile::Scope inner(profile, Part::dispatch);
      wait(30);
    }
    wait(2);
  }
  wait(2);
  const double total = profile.total_seconds();
  const double elapsed =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_GE(profile.seconds(Part::dispatch), 0.030);
  EXPECT_GE(profile.seconds(Part::experts), 0.004);
  EXPECT_GE(profile.seconds(Part::other), 0.002);
  // Exclusive: had the outer clock run on, the parts would exceed the whole by 30 ms.
  EXPECT_LE(total, elapsed);
  EXPECT_EQ(profile.seconds(Part::head), 0);
}

TEST(Profile, WorkGoesToTheOpenPart) {
  Profile profile;
  profile.record({.flops = 1, .bytes = 2, .wire_bytes = 3});
  {
    const Profile::Scope scope(profile, Part::attention);
    profile.record({.flops = 10, .bytes = 20, .wire_bytes = 30});
    profile.record({.flops = 100, .bytes = 200, .wire_bytes = 300});
  }
  profile.record({.flops = 1000, .bytes = 2000, .wire_bytes = 3000});
  EXPECT_EQ(profile.work(Part::attention).flops, 110);
  EXPECT_EQ(profile.work(Part::attention).bytes, 220);
  EXPECT_EQ(profile.work(Part::other).wire_bytes, 3003);
  EXPECT_EQ(profile.total_work().flops, 1111);
  EXPECT_EQ(profile.total_work().wire_bytes, 3333);
  profile.reset();
  EXPECT_EQ(profile.total_work().flops, 0);
}

TEST(Profile, WhatStandsForSeveralCountsAsOften) {
  Profile profile;
  {
    const Profile::Repeat repeat(profile, 7);
    const Profile::Scope scope(profile, Part::experts);
    profile.record({.flops = 3, .bytes = 5, .wire_bytes = 11});
    EXPECT_EQ(profile.times(), 7);
  }
  profile.record({.flops = 1, .bytes = 1, .wire_bytes = 1});
  EXPECT_EQ(profile.work(Part::experts).flops, 21);
  EXPECT_EQ(profile.work(Part::experts).bytes, 35);
  EXPECT_EQ(profile.work(Part::experts).wire_bytes, 77);
  EXPECT_EQ(profile.total_work().flops, 22);
}

TEST(Profile, EveryPartHasAName) {
  for (int p = 0; p < num_parts; ++p) EXPECT_NE(name_of(static_cast<Part>(p)), "?");
}

}  // namespace
}  // namespace switchyard
