#include "tensor/profile.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace switchyard {
namespace {

void wait(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

TEST(Profile, TheOuterClockStandsStillInsideAnInnerScope) {
  const auto start = std::chrono::steady_clock::now();
  ImmediateStream clock;
  Profile profile(clock);
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
  ImmediateStream clock;
  Profile profile(clock);
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
  ImmediateStream clock;
  Profile profile(clock);
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

// A stream whose moments come when the test says, a second after each other.
class SlowStream final : public Stream {
 public:
  Event record() override { return {}; }
  void wait_host() override {}
  TimePoint mark() override { return {num_marks_++}; }
  bool has_come(TimePoint point) override { return point.number < num_come; }
  double seconds_between(TimePoint from, TimePoint to) override {
    EXPECT_GE(from.number, first_kept_);
    num_come = std::max(num_come, to.number + 1);
    return static_cast<double>(to.number - from.number);
  }
  void forget_before(TimePoint first_kept) override { first_kept_ = first_kept.number; }

  std::int64_t num_come = 0;
  std::int64_t num_kept() const { return num_marks_ - first_kept_; }

 private:
  std::int64_t num_marks_ = 0;
  std::int64_t first_kept_ = 0;
};

TEST(Profile, SecondsAreTheStreamsAndAreWaitedForWhenAskedFor) {
  SlowStream stream;
  Profile profile(stream);
  for (int layer = 0; layer < 3; ++layer) const Profile::Scope scope(profile, Part::experts);
  EXPECT_EQ(stream.num_come, 0) << "nobody asked";
  stream.num_come = 4;  // the first layer, and the begin of the second
  EXPECT_EQ(profile.known_seconds(Part::experts), 1);
  EXPECT_EQ(stream.num_come, 4) << "nobody waited";
  EXPECT_EQ(profile.seconds(Part::experts), 3);
  EXPECT_EQ(stream.num_kept(), 1) << "what is over is not kept";
  profile.reset();
  { const Profile::Scope scope(profile, Part::head); }
  EXPECT_EQ(profile.seconds(Part::head), 1);
  EXPECT_EQ(profile.seconds(Part::experts), 0);
}

TEST(Profile, KeepsFewMomentsThoughNobodyAsks) {
  SlowStream stream;
  Profile profile(stream);
  for (int i = 0; i < 50'000; ++i) const Profile::Scope scope(profile, Part::experts);
  EXPECT_LT(stream.num_kept(), 10'000);
  EXPECT_LT(stream.num_come, 100'001) << "what is under way is not waited for";
  EXPECT_EQ(profile.seconds(Part::experts), 50'000);
}

TEST(Profile, EveryPartHasAName) {
  for (int p = 0; p < num_parts; ++p) EXPECT_NE(name_of(static_cast<Part>(p)), "?");
}

}  // namespace
}  // namespace switchyard
