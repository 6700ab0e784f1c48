#include "tensor/stream.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensor/device.hpp"

namespace switchyard {
namespace {

// Work that notes what was asked of it.
class NotedWork : public Event::Pending {
 public:
  explicit NotedWork(std::vector<std::string>& notes) : notes_(notes) {}
  bool test() override {
    notes_.emplace_back("test");
    return false;
  }
  void wait_host() override { notes_.emplace_back("host"); }

 protected:
  std::vector<std::string>& notes_;
};

// Of a device with queues: a stream can wait without the host.
class QueuedWork final : public NotedWork {
 public:
  using NotedWork::NotedWork;
  void wait(Stream&) override { notes_.emplace_back("stream"); }
};

TEST(Event, AStreamWaitsWithoutTheHostWhereItCan) {
  ImmediateStream stream;
  std::vector<std::string> notes;
  Event queued(std::make_unique<QueuedWork>(notes));
  EXPECT_FALSE(queued.test());
  queued.wait(stream);
  EXPECT_TRUE(queued.test()) << "done for its holder";
  queued.wait_host();
  EXPECT_EQ(notes, (std::vector<std::string>{"test", "stream"}));
}

TEST(Event, WithoutQueuesTheHostWaits) {
  ImmediateStream stream;
  std::vector<std::string> notes;
  Event work(std::make_unique<NotedWork>(notes));
  work.wait(stream);
  EXPECT_EQ(notes, std::vector<std::string>{"host"});
}

TEST(Event, IsWaitedForWhenItGoes) {
  std::vector<std::string> notes;
  { const Event work(std::make_unique<QueuedWork>(notes)); }
  EXPECT_EQ(notes, std::vector<std::string>{"host"});
}

TEST(Event, WhatWaitingThrowsIsThrownOnce) {
  class Failing final : public Event::Pending {
    bool test() override { throw std::runtime_error("the wire is cut"); }
    void wait_host() override { throw std::runtime_error("the wire is cut"); }
  };
  ImmediateStream stream;
  Event work(std::make_unique<Failing>());
  EXPECT_THROW(work.wait(stream), std::runtime_error);
  EXPECT_TRUE(work.test());
}

TEST(Stream, OfACpuHoldsNothingBack) {
  const auto device = make_cpu_device();
  EXPECT_NE(&device->compute_stream(), &device->communication_stream());
  EXPECT_TRUE(device->compute_stream().record().test());
  device->communication_stream().wait_host();
}

// 10 FLOP/s and 2 bytes/s: 3 s of computation beside 5 s of messages, then 1 s.
TEST(PlanStream, WaitsOnlyForWhatIsNotHidden) {
  const auto device = make_plan_device({.rank_flops = 10, .link_bytes = 2});
  Stream& compute = device->compute_stream();
  Stream& wires = device->communication_stream();
  const TimePoint begin = compute.mark();
  const auto seconds = [&](Stream& of) { return of.seconds_between(begin, of.mark()); };
  compute.record().wait(wires);
  device->profile().record({.wire_bytes = 10});
  Event arrived = wires.record();
  device->profile().record({.flops = 30});
  EXPECT_DOUBLE_EQ(seconds(compute), 3);
  arrived.wait(compute);
  EXPECT_DOUBLE_EQ(seconds(compute), 5);
  EXPECT_DOUBLE_EQ(device->profile().total_seconds(), 5);
  device->profile().reset();
  device->profile().record({.flops = 10});
  EXPECT_DOUBLE_EQ(seconds(compute), 6) << "the clock goes on";
  EXPECT_DOUBLE_EQ(device->profile().total_seconds(), 1);
  compute.record().wait(wires);  // nothing travels before it is computed
  EXPECT_DOUBLE_EQ(seconds(wires), 6);
  wires.record().wait(compute);
  EXPECT_DOUBLE_EQ(seconds(compute), 6);
}

}  // namespace
}  // namespace switchyard
