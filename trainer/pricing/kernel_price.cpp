#include "trainer/pricing/kernel_price.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Rates hardly change above sizes that fill the caches and the threads; a size below the smallest
// takes as long as that. Only an axis that shapes the loops themselves says little beyond its ends.
constexpr double most_beyond = 4;  // times the largest, or a fraction of the smallest

bool is_open(std::string_view axis) {
  return axis != "out" && axis != "in" && axis != "head_dim";
}
// Axes that say how a kernel works, not how much.
bool is_manner(std::string_view axis) {
  return axis == "length" || axis == "group";
}

// The window that gives queries of `length` so many keys in the mean: w - w (w - 1) / (2 length).
double window_of(double mean_keys, double length) {
  const double b = length + 0.5;
  return b - std::sqrt(std::max(0.0, b * b - 2 * length * mean_keys));
}

std::vector<double> point_of(const WorkUnit& unit, double rows_factor) {
  const auto dim = [&](std::size_t i) { return static_cast<double>(unit.dims[i]); };
  if (unit.kind.starts_with("grouped_linear_"))
    return {rows_factor * dim(1) / std::max(1.0, dim(0)), dim(2), dim(3)};
  if (unit.kind.starts_with("linear_")) return {rows_factor * dim(0), dim(1), dim(2)};
  if (axes_of(unit.kind).of_flops) {
    const double group = dim(2) / std::max(1.0, dim(4));
    if (unit.kind.ends_with("_window")) return {window_of(dim(1), dim(5)), dim(5), dim(3), group};
    return {dim(1), dim(3), group};
  }
  return {rows_factor * unit.bytes};
}

std::string kind_text(const WorkUnit& unit) {
  return fmt::format("{} of {}", unit.kind, name_of(unit.dtype));
}

// Seconds by a table; sizes outside it are noted.
double seconds_of(const WorkUnit& unit, const RateTable& table, double rows_factor,
                  PriceGaps& gaps) {
  const RateAxes axes = axes_of(unit.kind);
  std::vector<double> point = point_of(unit, rows_factor);
  double work = rows_factor * (axes.of_flops ? unit.flops : unit.bytes);
  for (std::size_t i = 0; i < point.size(); ++i) {
    const double least = table.axes[i].front(), most = table.axes[i].back();
    const double asked = std::max(point[i], 1e-9);
    point[i] = std::clamp(asked, least, most);
    if (asked < least && !is_manner(axes.names[i])) work *= least / asked;
    const bool is_far =
        !is_open(axes.names[i]) && (asked > most_beyond * most || asked * most_beyond < least);
    if (is_far)
      gaps.extrapolated.insert(fmt::format("{}: {} {:.0f} (measured: {:.0f} to {:.0f})",
                                           kind_text(unit), axes.names[i], asked, least, most));
  }
  return work / rate_at(table, point);
}

const RateTable* find_table(const MachineSetting& setting, std::string_view kind, DType dtype) {
  const auto by_type = setting.kernels.find(kind);
  if (by_type == setting.kernels.end()) return nullptr;
  const auto table = by_type->second.find(dtype);
  return table == by_type->second.end() ? nullptr : &table->second;
}

// A kernel that goes by its bytes takes another type's table, if its own type has none.
const RateTable* table_of(const WorkUnit& unit, const MachineSetting& setting) {
  if (const RateTable* const own = find_table(setting, unit.kind, unit.dtype)) return own;
  if (axes_of(unit.kind).of_flops) return nullptr;
  for (const DType dtype : {DType::f32, DType::bf16, DType::i32})
    if (const RateTable* const other = find_table(setting, unit.kind, dtype)) return other;
  return nullptr;
}

double plain_seconds(const WorkUnit& unit, const MachineProfile& profile, const PlainRates& plain,
                     double rows_factor) {
  double seconds = rows_factor * unit.bytes / plain.bytes_per_second;
  if (axes_of(unit.kind).of_flops) {
    const auto rate = plain.flops_per_second.find(unit.dtype);
    if (rate == plain.flops_per_second.end())
      throw ConfigError(
          fmt::format("{}: it has no rate for {}; measure it with `switchyard bench "
                      "machine`, or give plain.flops_per_second.{}",
                      profile.path, kind_text(unit), name_of(unit.dtype)));
    seconds = std::max(seconds, rows_factor * unit.flops / rate->second);
  }
  return plain.latency + seconds;
}

}  // namespace

double rate_at(const RateTable& table, const std::vector<double>& point) {
  // Along each axis the cell and the place in it; then the mean over the cell's corners.
  const std::size_t num_axes = point.size();
  std::vector<std::size_t> cell(num_axes);
  std::vector<double> share(num_axes);  // of the upper end
  for (std::size_t i = 0; i < num_axes; ++i) {
    const std::vector<double>& axis = table.axes[i];
    const auto above = std::upper_bound(axis.begin(), axis.end(), point[i]);
    const auto place = std::max<std::ptrdiff_t>(1, above - axis.begin());
    cell[i] = static_cast<std::size_t>(place - 1);
    if (cell[i] + 1 < axis.size())
      share[i] = std::log(point[i] / axis[cell[i]]) / std::log(axis[cell[i] + 1] / axis[cell[i]]);
  }
  double log_rate = 0;
  for (std::size_t corner = 0; corner < (std::size_t{1} << num_axes); ++corner) {
    double weight = 1;
    std::size_t index = 0;
    for (std::size_t i = 0; i < num_axes; ++i) {
      const bool upper = (corner >> i & 1) != 0;
      weight *= upper ? share[i] : 1 - share[i];
      index = index * table.axes[i].size() +
              std::min(cell[i] + (upper ? 1 : 0), table.axes[i].size() - 1);
    }
    if (weight > 0) log_rate += weight * std::log(table.rates[index]);
  }
  return std::exp(log_rate);
}

double kernel_seconds(const WorkUnit& unit, const MachineProfile& profile,
                      const MachineSetting& setting, PriceGaps& gaps, double rows_factor) {
  if (const RateTable* const table = table_of(unit, setting))
    return seconds_of(unit, *table, rows_factor, gaps);
  if (setting.has_plain_rates()) return plain_seconds(unit, profile, setting.plain, rows_factor);
  WorkUnit copy = unit;
  copy.kind = "copy";
  const RateTable* const copies = axes_of(unit.kind).of_flops ? nullptr : table_of(copy, setting);
  if (copies == nullptr)
    throw ConfigError(
        fmt::format("{}: it has no rates for {}; measure the machine again with "
                    "`switchyard bench machine`",
                    profile.path, kind_text(unit)));
  gaps.as_copies.insert(std::string(unit.kind));
  return seconds_of(copy, *copies, rows_factor, gaps);
}

}  // namespace switchyard
