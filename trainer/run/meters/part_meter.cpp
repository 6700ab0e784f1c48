#include "trainer/run/meters/part_meter.hpp"

namespace switchyard {

PartSeconds PartMeter::known() {
  PartSeconds seconds{};
  for (std::size_t part = 0; part < num_parts; ++part)
    seconds[part] = profile_.known_seconds(static_cast<Part>(part));
  return seconds;
}

PartSeconds PartMeter::end_step() {
  PartSeconds seconds = known();
  for (std::size_t part = 0; part < num_parts; ++part) seconds[part] -= before_[part];
  return seconds;
}

}  // namespace switchyard
