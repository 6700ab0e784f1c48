#include "trainer/number_text.hpp"

#include <fmt/core.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <span>
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

namespace {

Unit first_above(std::span<const Unit> units, double largest) {
  for (const Unit& unit : units)
    if (largest < 1e5 * unit.size) return unit;
  return units.back();
}

}  // namespace

Unit flop_unit(double largest) {
  constexpr std::array<Unit, 5> units{
      {{"GFLOP", 1e9}, {"TFLOP", 1e12}, {"PFLOP", 1e15}, {"EFLOP", 1e18}, {"ZFLOP", 1e21}}};
  return first_above(units, largest);
}

Unit byte_unit(double largest) {
  constexpr std::array<Unit, 5> units{
      {{"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15}, {"EB", 1e18}}};
  return first_above(units, largest);
}

Unit time_unit(double largest) {
  constexpr std::array<Unit, 3> units{{{"ms", 1e-3}, {"s", 1}, {"h", 3600}}};
  return first_above(units, largest);
}

std::string format_bytes(double bytes) {
  constexpr std::array<std::string_view, 7> units{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t power = 0;
  while (bytes >= 1023.95 && power + 1 < units.size()) {
    bytes /= 1024;
    ++power;
  }
  return power == 0 ? fmt::format("{:.0f} B", bytes)
                    : fmt::format("{:.1f} {}", bytes, units[power]);
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc{} || !(number >= 0)) return std::nullopt;
  std::string unit(stop, end);
  for (char& letter : unit)
    letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  double size = 1;
  if (!unit.empty() && unit != "B") {
    constexpr std::string_view prefixes = "KMGTP";
    const std::size_t power = prefixes.find(unit.front());
    const std::string_view rest = std::string_view(unit).substr(1);
    if (power == std::string_view::npos) return std::nullopt;
    if (rest != "" && rest != "I" && rest != "IB" && rest != "B") return std::nullopt;
    size = std::pow(rest == "B" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  const double bytes = std::round(number * size);
  if (!(bytes < 9.2e18)) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "--:--";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t hours = whole / 3600;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, whole / 60 % 60, whole % 60);
  return fmt::format("{:02}:{:02}", whole / 60, whole % 60);
}

}  // namespace switchyard
