#include <fmt/core.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "bench/kernel_cases.hpp"
#include "bench/machine_rates.hpp"
#include "kernels/peak.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "tensor/work_record.hpp"

namespace switchyard::bench {

namespace {

using Sizes = std::vector<std::int64_t>;

// The points of the tables.
struct Grids {
  Sizes rows, out, in;                           // of products
  Sizes rows_of_group, grouped_out, grouped_in;  // of grouped ones
  // Of attention; every window is at most half of every long length, or the
  // record would not take it for one.
  Sizes lengths, windows, long_lengths, keys;
  Sizes head_dims, groups;  // likewise
  Sizes loop_rows;
};

Grids grids_of(bool quick) {
  if (quick)
    return {.rows = {16, 1024},
            .out = {16, 512},
            .in = {64, 512},
            .rows_of_group = {16, 256},
            .grouped_out = {64, 512},
            .grouped_in = {64, 512},
            .lengths = {64, 512},
            .windows = {64},
            .long_lengths = {512},
            .keys = {512},
            .head_dims = {64},
            .groups = {2},
            .loop_rows = {4, 256, 8192}};
  return {.rows = {1, 16, 64, 256, 1024, 4096},
          .out = {2, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192},
          .in = {16, 64, 128, 256, 512, 1024, 2048, 4096},
          .rows_of_group = {1, 8, 32, 128, 512},
          .grouped_out = {32, 128, 256, 512, 1024, 2048},
          .grouped_in = {32, 128, 256, 512, 1024, 2048},
          .lengths = {32, 128, 512, 2048, 8192},
          .windows = {32, 128, 512},
          .long_lengths = {1024, 2048, 4096},
          .keys = {128, 512, 2048},
          .head_dims = {16, 32, 64, 128},
          .groups = {1, 2, 8},
          .loop_rows = {1, 16, 256, 1024, 4096, 16384, 65536}};
}

std::vector<double> axis_of(const Sizes& sizes) {
  return {sizes.begin(), sizes.end()};
}

// A processor's last cache holds less. What the system tells is often the sum over all parts of a
// processor, of which a core uses one: 16 to 32 MiB on those of today.
double beyond_caches() {
  constexpr double least = 16 << 20, most = 32 << 20;
  return 2 * std::clamp(static_cast<double>(sysconf(_SC_LEVEL3_CACHE_SIZE)), least, most);
}

// Reads a tensor, if there is one, so that it lies where the processor finds what it has just
// written.
void read(const TensorView& view) {
  if (view.empty()) return;
  constexpr std::int64_t line = 64;
  const std::byte* const bytes = reinterpret_cast<const std::byte*>(view.host_bytes());
  std::byte sum{};
  for (std::int64_t i = 0; i < view.num_bytes(); i += line) sum ^= bytes[i];
  [[maybe_unused]] volatile std::byte kept = sum;
}

// Calls of the same kernels on operands of their own, one after the other, so that they find
// nothing in the caches but what a step has just written.
class Rotation {
 public:
  // make(device): the calls of one set of operands.
  template <class Make>
  Rotation(Device& device, double bytes, Make&& make) {
    constexpr double most = 24;
    const auto count =
        static_cast<int>(std::clamp(std::ceil(beyond_caches() / std::max(bytes, 1.0)), 1.0, most));
    for (int i = 0; i < count; ++i) sets_.push_back(make(device));
  }
  // Of the which-th call of a set.
  double seconds(QuietTimer& timer, std::size_t which) {
    constexpr int num_repetitions = 5;
    return timer.seconds_of([&] { read(next(which).fresh); }, [&] { sets_[now_][which].run(); },
                            num_repetitions);
  }

 private:
  const KernelCall& next(std::size_t which) {
    now_ = (now_ + 1) % sets_.size();
    return sets_[now_][which];
  }

  std::vector<std::vector<KernelCall>> sets_;
  std::size_t now_ = 0;
};

// Memory that is given back stays with the process and serves the next operands: to fetch it anew
// from the system, page by page, would take a third of the time of all measurements.
void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

class KernelRates {
 public:
  KernelRates(Group& world, bool quick, MachineSetting& setting)
      : timer_(quick ? QuietTimer(world, 0) : QuietTimer(world)),
        setting_(setting),
        device_(make_cpu_device()),
        plan_(make_plan_device()) {}

  // Adds the rates of the kernels that `make` gives, at the next point of their tables. Where there
  // are more operations than `most_flops`, the rate is that of the point `back` points before,
  // which has fewer rows.
  template <class Make>
  void measure_point(const std::vector<std::vector<double>>& axes, std::size_t back, Make&& make) {
    const std::vector<WorkUnit> units = units_of(make);
    std::optional<Rotation> rotation;
    for (std::size_t which = 0; which < units.size(); ++which) {
      const WorkUnit& unit = units[which];
      RateTable& table = setting_.kernels[std::string(unit.kind)][unit.dtype];
      if (table.axes.empty()) table.axes = axes;
      expect(table.axes == axes, "a case of the kind that its table is of");
      if (unit.flops > most_flops && table.rates.size() >= back) {
        table.rates.push_back(table.rates[table.rates.size() - back]);
        continue;
      }
      if (!rotation) rotation.emplace(*device_, most_bytes(units), make);
      table.rates.push_back(unit.flops / rotation->seconds(timer_, which));
    }
  }

  // A kernel by its bytes at so many rows.
  void measure_loop(const LoopCase& loop, DType dtype, const Sizes& loop_rows) {
    RateTable table;
    table.axes.emplace_back();
    WorkUnit key;
    for (const std::int64_t rows : loop_rows) {
      const auto make = [&](Device& device) {
        return std::vector<KernelCall>{loop.make(device, rows, dtype)};
      };
      key = units_of(make).back();
      if (!table.axes[0].empty() && key.bytes <= table.axes[0].back()) continue;
      table.axes[0].push_back(key.bytes);
      table.rates.push_back(key.bytes / Rotation(*device_, key.bytes, make).seconds(timer_, 0));
    }
    setting_.kernels[std::string(key.kind)][key.dtype] = std::move(table);
  }

 private:
  static constexpr double most_flops = 2e10;

  // What a step's record would have of each call.
  template <class Make>
  std::vector<WorkUnit> units_of(Make&& make) {
    std::vector<WorkUnit> units;
    for (const KernelCall& call : make(*plan_)) {
      WorkRecord record;
      plan_->profile().keep_work_in(&record);
      call.run();
      plan_->profile().keep_work_in(nullptr);
      expect(record.items().size() == 1, "a case of one kernel");
      units.push_back(record.works().front());
    }
    return units;
  }

  static double most_bytes(const std::vector<WorkUnit>& units) {
    return std::ranges::max(units, {}, &WorkUnit::bytes).bytes;
  }

  QuietTimer timer_;
  MachineSetting& setting_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Device> plan_;
};

void measure_products(KernelRates& rates, const Grids& grids, DType dtype) {
  const std::vector<std::vector<double>> axes = {axis_of(grids.rows), axis_of(grids.out),
                                                 axis_of(grids.in)};
  for (const std::int64_t rows : grids.rows)
    for (const std::int64_t out : grids.out)
      for (const std::int64_t in : grids.in)
        rates.measure_point(axes, grids.out.size() * grids.in.size(), [&](Device& device) {
          return product_calls(device, rows, out, in, dtype);
        });
}

void measure_grouped(KernelRates& rates, const Grids& grids, DType dtype) {
  constexpr std::int64_t groups = 8;
  const std::vector<std::vector<double>> axes = {
      axis_of(grids.rows_of_group), axis_of(grids.grouped_out), axis_of(grids.grouped_in)};
  for (const std::int64_t rows : grids.rows_of_group)
    for (const std::int64_t out : grids.grouped_out)
      for (const std::int64_t in : grids.grouped_in)
        rates.measure_point(
            axes, grids.grouped_out.size() * grids.grouped_in.size(),
            [&](Device& device) { return grouped_calls(device, groups, rows, out, in, dtype); });
}

// Keys that a query sees in the mean, where each sees the last `window` of those before it.
double mean_keys(std::int64_t length, std::int64_t window) {
  const auto n = static_cast<double>(length), w = static_cast<double>(window);
  return w - w * (w - 1) / (2 * n);
}

void measure_attention(KernelRates& rates, const Grids& grids, DType dtype) {
  const std::vector<double> dims = axis_of(grids.head_dims), groups = axis_of(grids.groups);
  const std::size_t back = dims.size() * groups.size();
  const auto measure = [&](std::vector<std::vector<double>> axes, AttentionCase which) {
    axes.insert(axes.end(), {dims, groups});
    for (which.head_dim = 0; const std::int64_t head_dim : grids.head_dims)
      for (const std::int64_t group : grids.groups) {
        which.head_dim = head_dim;
        which.group = group;
        rates.measure_point(axes, back,
                            [&](Device& device) { return attention_calls(device, which, dtype); });
      }
  };
  std::vector<double> causal;
  for (const std::int64_t length : grids.lengths) causal.push_back(mean_keys(length, length));
  for (const std::int64_t length : grids.lengths)
    measure({causal}, {.query_length = length, .key_length = length});
  for (const std::int64_t keys : grids.keys)
    measure({axis_of(grids.keys)}, {.query_length = 512, .key_length = keys, .is_causal = false});
  // By window, since the mean number of keys is smaller in a short sequence.
  for (const std::int64_t window : grids.windows)
    for (const std::int64_t length : grids.long_lengths)
      measure({axis_of(grids.windows), axis_of(grids.long_lengths)},
              {.query_length = length, .key_length = length, .window = window});
}

}  // namespace

void measure_kernels(Group& world, const MachineOptions& options, MachineSetting& setting) {
  keep_freed_memory();
  const Grids grids = grids_of(options.quick);
  KernelRates rates(world, options.quick, setting);
  const std::unique_ptr<Device> device = make_cpu_device();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double peak = bench::measure_products(world, *device, dtype);
    setting.peak_flops_per_second[dtype] = peak / world.size();
    options.note(fmt::format("products in {}", name_of(dtype)));
    measure_products(rates, grids, dtype);
    options.note(fmt::format("grouped products in {}", name_of(dtype)));
    measure_grouped(rates, grids, dtype);
    options.note(fmt::format("attention in {}", name_of(dtype)));
    measure_attention(rates, grids, dtype);
  }
  options.note("kernels that go by their bytes");
  for (const LoopCase& loop : loop_cases())
    for (const DType dtype : {DType::f32, DType::bf16})
      if (dtype == DType::f32 || loop.has_bf16) rates.measure_loop(loop, dtype, grids.loop_rows);
}

}  // namespace switchyard::bench
