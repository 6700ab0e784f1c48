#include "bench/rate_tables.hpp"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard::bench {

namespace {

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
  double seconds(QuietTimer& timer, std::size_t which, int num_repetitions) {
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

double most_bytes(const std::vector<WorkUnit>& units) {
  return std::ranges::max(units, {}, &WorkUnit::bytes).bytes;
}

}  // namespace

RateTables::RateTables(Group& world, bool quick, MachineSetting& setting)
    : timer_(quick ? QuietTimer(world, 0) : QuietTimer(world)),
      setting_(setting),
      device_(make_cpu_device()),
      plan_(make_plan_device()) {
  keep_freed_memory();
}

void RateTables::measure_point(const std::vector<std::vector<double>>& axes, std::size_t back,
                               const MakeCalls& make) {
  constexpr double most_flops = 2e10;
  constexpr int num_repetitions = 3;  // what stands out is measured again
  const std::vector<WorkUnit> units = units_of(make);
  std::optional<Rotation> rotation;
  for (std::size_t which = 0; which < units.size(); ++which) {
    const WorkUnit& unit = units[which];
    RateTable& table = setting_.kernels[std::string(unit.kind)][unit.dtype];
    if (table.axes.empty()) table.axes = axes;
    expect(table.axes == axes, "a case of the kind that its table is of");
    const std::size_t index = table.rates.size();
    if (unit.flops > most_flops && index >= back) {
      copies_.push_back({&table, index - back, index});
      table.rates.push_back(table.rates[index - back]);
      continue;
    }
    if (!rotation) rotation.emplace(*device_, most_bytes(units), make);
    table.rates.push_back(unit.flops / rotation->seconds(timer_, which, num_repetitions));
    points_.push_back({make, which, &table, index, unit.flops, most_bytes(units)});
  }
}

void RateTables::measure_outliers_again() {
  constexpr double share_of_neighbours = 0.85;
  constexpr int num_rounds = 2, num_repetitions = 5;
  for (int round = 0; round < num_rounds; ++round)
    for (const Point& point : points_) {
      double& rate = point.table->rates[point.index];
      if (rate >= share_of_neighbours * rate_beside(*point.table, point.index)) continue;
      Rotation rotation(*device_, point.bytes, point.make);
      rate = std::max(rate, point.flops / rotation.seconds(timer_, point.which, num_repetitions));
    }
  for (const Copy& copy : copies_) copy.table->rates[copy.to] = copy.table->rates[copy.from];
  points_.clear();
  copies_.clear();
}

void RateTables::measure_loop(const LoopCase& loop, DType dtype,
                              const std::vector<std::int64_t>& loop_rows) {
  constexpr int num_rounds = 2, num_repetitions = 3;  // the better round counts, as above
  RateTable table;
  table.axes.emplace_back();
  WorkUnit key;
  for (int round = 0; round < num_rounds; ++round) {
    std::size_t index = 0;
    for (double last = 0; const std::int64_t rows : loop_rows) {
      const MakeCalls make = [&](Device& device) {
        return std::vector<KernelCall>{loop.make(device, rows, dtype)};
      };
      key = units_of(make).back();
      if (key.bytes <= last) continue;
      last = key.bytes;
      const double rate =
          key.bytes / Rotation(*device_, key.bytes, make).seconds(timer_, 0, num_repetitions);
      if (round == 0) {
        table.axes[0].push_back(key.bytes);
        table.rates.push_back(rate);
      } else {
        table.rates[index] = std::max(table.rates[index], rate);
      }
      ++index;
    }
  }
  setting_.kernels[std::string(key.kind)][key.dtype] = std::move(table);
}

std::vector<WorkUnit> RateTables::units_of(const MakeCalls& make) {
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

double rate_beside(const RateTable& table, std::size_t index) {
  double sum = 0;
  int count = 0;
  std::size_t stride = 1;  // of the axis, in the table
  for (std::size_t i = table.axes.size(); i-- > 0;) {
    const std::size_t size = table.axes[i].size(), place = index / stride % size;
    if (place > 0) sum += std::log(table.rates[index - stride]), ++count;
    if (place + 1 < size) sum += std::log(table.rates[index + stride]), ++count;
    stride *= size;
  }
  return count == 0 ? table.rates[index] : std::exp(sum / count);
}

}  // namespace switchyard::bench
