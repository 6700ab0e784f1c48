// Numbers as people read them: a few digits and a unit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace switchyard {

std::string format_count(double count);       // 987, 1.9k, 24.1M, 3.2B
std::string format_duration(double seconds);  // 00:42, 1:02:03
std::string format_bytes(double bytes);       // 512 B, 1.5 MiB

// "512GiB", "1.5TB", "64G" or "1000": K, M, G, T and Ki, Mi, ... count in powers of 1024, as Slurm
// and docker take them, KB, MB, ... in powers of 1000. None for anything else, 2^63 or more
// included.
std::optional<std::int64_t> parse_bytes(std::string_view text);

// For a column of figures in one unit: `largest` of them is then below 100,000, if any unit is that
// large.
struct Unit {
  std::string_view name;
  double size = 1;
};
Unit flop_unit(double largest);  // GFLOP, TFLOP, PFLOP, EFLOP, ZFLOP
Unit byte_unit(double largest);  // MB, GB, TB, PB, EB
Unit time_unit(double largest);  // of seconds: ms, s, h

}  // namespace switchyard
