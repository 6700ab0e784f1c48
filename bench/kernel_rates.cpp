#include <fmt/core.h>

#include <algorithm>
#include <array>

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
  Sizes lengths, head_dims;                      // of attention
  Sizes loop_rows;
};

Grids grids_of(bool quick) {
  if (quick)
    return {{16, 1024}, {16, 512}, {64, 512}, {16, 256},     {64, 512},
            {64, 512},  {64, 512}, {64},      {4, 256, 8192}};
  return {{1, 16, 64, 256, 1024, 4096},
          {2, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192},
          {16, 64, 128, 256, 512, 1024, 2048, 4096},
          {1, 8, 32, 128, 512},
          {32, 128, 256, 512, 1024, 2048},
          {32, 128, 256, 512, 1024, 2048},
          {32, 128, 512, 2048, 8192},
          {16, 32, 64, 128},
          {1, 16, 256, 4096, 32768}};
}

std::vector<double> axis_of(const Sizes& sizes) {
  return {sizes.begin(), sizes.end()};
}

// Calls of the same kernel on operands of their own, one after the other.
class Rotation {
 public:
  // make(device): the calls of one set of operands, of which `which` is meant.
  template <class Make>
  Rotation(Device& device, double bytes, std::size_t which, Make&& make) {
    constexpr double all_bytes = 16 << 20;  // far beyond a core's own caches
    constexpr double most = 8;
    const auto count = static_cast<int>(std::clamp(all_bytes / std::max(bytes, 1.0), 1.0, most));
    for (int i = 0; i < count; ++i) calls_.push_back(make(device)[which]);
  }
  void operator()() { calls_[next_++ % calls_.size()](); }

 private:
  std::vector<KernelCall> calls_;
  std::size_t next_ = 0;
};

class KernelRates {
 public:
  KernelRates(Group& world, MachineSetting& setting)
      : world_(world), setting_(setting), device_(make_cpu_device()), plan_(make_plan_device()) {}

  // Adds the rates of the kernels that `make` gives, at the next point of their tables. Where there
  // are more operations than `most_flops`, the rate is that of the point `back` points before,
  // which has fewer rows.
  template <class Make>
  void measure_point(const std::vector<std::vector<double>>& axes, std::size_t back, Make&& make) {
    const std::vector<WorkUnit> units = units_of(make);
    for (std::size_t which = 0; which < units.size(); ++which) {
      const WorkUnit& unit = units[which];
      RateTable& table = setting_.kernels[std::string(unit.kind)][unit.dtype];
      if (table.axes.empty()) table.axes = axes;
      table.rates.push_back(unit.flops > most_flops && table.rates.size() >= back
                                ? table.rates[table.rates.size() - back]
                                : rate_of(unit, which, make));
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
      table.rates.push_back(rate_of(key, 0, make));
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
      call();
      plan_->profile().keep_work_in(nullptr);
      expect(record.items().size() == 1, "a case of one kernel");
      units.push_back(record.works().front());
    }
    return units;
  }

  template <class Make>
  double rate_of(const WorkUnit& unit, std::size_t which, Make&& make) {
    Rotation call(*device_, unit.bytes, which, make);
    const Times times = measure(world_, {.num_warmup = 1, .num_steps = 3}, [&] { call(); });
    return (axes_of(unit.kind).of_flops ? unit.flops : unit.bytes) / times.median;
  }

  Group& world_;
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

void measure_attention(KernelRates& rates, const Grids& grids, DType dtype) {
  std::vector<double> keys;
  for (const std::int64_t length : grids.lengths)
    keys.push_back(static_cast<double>(length + 1) / 2);
  const std::vector<std::vector<double>> axes = {keys, axis_of(grids.head_dims)};
  for (const std::int64_t length : grids.lengths)
    for (const std::int64_t head_dim : grids.head_dims)
      rates.measure_point(axes, grids.head_dims.size(), [&](Device& device) {
        return attention_calls(device, length, head_dim, dtype);
      });
}

}  // namespace

void measure_kernels(Group& world, const MachineOptions& options, MachineSetting& setting) {
  const Grids grids = grids_of(options.quick);
  KernelRates rates(world, setting);
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
