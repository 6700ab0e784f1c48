// What spilling costs in a step, over all ranks.
#pragma once

#include <optional>

#include "parallel/group/group.hpp"
#include "trainer/run/metrics.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

class SpillMeter {
 public:
  // Since the last call; none if nothing is spilled. Collective.
  std::optional<SpillMetrics> measure(Trainer& trainer, Group& world);

 private:
  ActivationStore::Statistics before_;
  double waited_before_ = 0;
};

}  // namespace switchyard
