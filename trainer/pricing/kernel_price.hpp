// Seconds of a kernel of a record, by a machine's tables: the rate between the measured sizes is
// interpolated, log of the rate over logs of the sizes.
#pragma once

#include <set>
#include <string>

#include "tensor/work_record.hpp"
#include "trainer/pricing/machine_profile.hpp"

namespace switchyard {

// What a price rests on that was not measured. Texts for the reader, each once.
struct PriceGaps {
  // Sizes far outside the measured ones: "linear_forward of bf16: out 65536 (measured: 2 to 8192)".
  std::set<std::string> extrapolated;
  // Kinds without a table, which go by their bytes as copies do.
  std::set<std::string> as_copies;
};

// rows_factor: kernels of rows that experts received have so many times as many rows.
// ConfigError if the profile has no figure at all for such a kernel, with the profile's path.
double kernel_seconds(const WorkUnit& unit, const MachineProfile& profile,
                      const MachineSetting& setting, PriceGaps& gaps, double rows_factor = 1);

// The rate at a point, which has one coordinate for each axis and lies within the grid.
double rate_at(const RateTable& table, const std::vector<double>& point);

}  // namespace switchyard
