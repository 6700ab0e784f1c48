#include "trainer/number_text.hpp"

#include <fmt/core.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace switchyard {

std::string format_count(double count) {
  constexpr std::array<std::string_view, 5> suffixes{"", "k", "M", "B", "T"};
  std::size_t power = 0;
  // 999.95 would be printed as 1000.0 of its unit.
  while (count >= (power == 0 ? 999.5 : 999.95) && power + 1 < suffixes.size()) {
    count /= 1000;
    ++power;
  }
  return power == 0 ? fmt::format("{:.0f}", count)
                    : fmt::format("{:.1f}{}", count, suffixes[power]);
}

std::string format_bytes(double bytes) {
  constexpr std::array<std::string_view, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t power = 0;
  while (bytes >= 1023.95 && power + 1 < units.size()) {
    bytes /= 1024;
    ++power;
  }
  return power == 0 ? fmt::format("{:.0f} B", bytes)
                    : fmt::format("{:.1f} {}", bytes, units[power]);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "--:--";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t hours = whole / 3600;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, whole / 60 % 60, whole % 60);
  return fmt::format("{:02}:{:02}", whole / 60, whole % 60);
}

}  // namespace switchyard
