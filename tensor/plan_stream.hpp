// The streams of a plan device that was told what its machine attains (PlanTarget): clocks in place
// of queues. A stream's time is what the work put on it so far would take, the FLOPs of the
// device's profile for the computation and its bytes on the wire for the exchanges, each by its
// rate, and what it waited for events of the other stream. So whether messages hide behind a
// computation follows from the order in which the program itself starts and waits. Moments
// (Stream::mark) and the profile's seconds are of this time.
#pragma once

#include "tensor/profile.hpp"
#include "tensor/stream.hpp"

namespace switchyard {

class PlanStream final : public Stream {
 public:
  // figure: of the profile's work, what this stream does; per_second: above 0.
  PlanStream(double Work::*figure, double per_second) : figure_(figure), per_second_(per_second) {}
  // Counts from now on what `profile` has; it outlives the stream's use.
  void follow(const Profile& profile) { profile_ = &profile; }

  Event record() override;
  void wait_host() override {}  // the host of a plan has no clock
  TimePoint mark() override;
  bool has_come(TimePoint) override { return true; }
  double seconds_between(TimePoint from, TimePoint to) override;
  void forget_before(TimePoint) override {}

  double seconds() const;  // since the device was made
  void wait_until(double seconds);

 private:
  const Profile* profile_ = nullptr;
  double Work::*figure_;
  double per_second_;
  double idle_ = 0;  // seconds
};

}  // namespace switchyard
