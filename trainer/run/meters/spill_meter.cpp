#include "trainer/run/meters/spill_meter.hpp"

namespace switchyard {

void SpillMeter::add_to(HostFigures& mine, Trainer& trainer) {
  const ActivationStore* store = trainer.activation_store();
  if (store == nullptr) return;
  const ActivationStore::Statistics now = store->statistics();
  const double waited = trainer.device().profile().known_seconds(Part::spill);
  mine.spilled_bytes =
      now.bytes_written + now.bytes_read - before_.bytes_written - before_.bytes_read;
  mine.maxima.spill_wait_seconds = waited - waited_before_;
  mine.maxima.spill_copy_seconds = now.copy_seconds - before_.copy_seconds;
  before_ = now;
  waited_before_ = waited;
}

SpillMetrics SpillMeter::of(const GatheredReport& report) {
  const double bytes = report.sums.spilled_bytes;
  const double copy_seconds = report.maxima.spill_copy_seconds;
  return {.bytes = bytes,
          .wait_seconds = report.maxima.spill_wait_seconds,
          .bytes_per_second = copy_seconds > 0 ? bytes / copy_seconds : 0};
}

}  // namespace switchyard
