// Where the time of one step went on this rank, by part.
#pragma once

#include "tensor/profile.hpp"
#include "trainer/run/meters/metrics.hpp"

namespace switchyard {

class PartMeter {
 public:
  // The profile outlives the meter.
  explicit PartMeter(Profile& profile) : profile_(profile) {}
  void begin_step() { before_ = known(); }
  // Since begin_step(), as far as the device has come: nobody waits.
  PartSeconds end_step();

 private:
  PartSeconds known();

  Profile& profile_;
  PartSeconds before_{};
};

}  // namespace switchyard
