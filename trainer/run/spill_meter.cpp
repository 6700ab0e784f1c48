#include "trainer/run/spill_meter.hpp"

#include <array>

namespace switchyard {

std::optional<SpillMetrics> SpillMeter::measure(Trainer& trainer, Group& world) {
  const ActivationStore* store = trainer.activation_store();
  if (store == nullptr) return std::nullopt;
  const ActivationStore::Statistics now = store->statistics();
  const double waited = trainer.device().profile().seconds(Part::spill);
  std::array<double, 1> bytes{now.bytes_written + now.bytes_read - before_.bytes_written -
                              before_.bytes_read};
  std::array<double, 2> seconds{waited - waited_before_, now.copy_seconds - before_.copy_seconds};
  before_ = now;
  waited_before_ = waited;
  world.all_reduce_values(bytes, ReduceOp::sum);
  world.all_reduce_values(seconds, ReduceOp::max);
  return SpillMetrics{.bytes = bytes[0],
                      .wait_seconds = seconds[0],
                      .bytes_per_second = seconds[1] > 0 ? bytes[0] / seconds[1] : 0};
}

}  // namespace switchyard
