// What spilling costs in a step, over all ranks.
#pragma once

#include "trainer/run/meters/metrics.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

class SpillMeter {
 public:
  // This rank's figures since the last call; nothing if nothing is spilled.
  void add_to(HostFigures& mine, Trainer& trainer);
  // Those of all ranks.
  static SpillMetrics of(const GatheredReport& report);

 private:
  ActivationStore::Statistics before_;
  double waited_before_ = 0;
};

}  // namespace switchyard
