// Measures kernels into a profile's tables of rates (trainer/pricing/machine_profile.hpp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bench/kernel_cases.hpp"
#include "bench/measure.hpp"
#include "tensor/work_record.hpp"
#include "trainer/pricing/machine_profile.hpp"

namespace switchyard::bench {

class RateTables {
 public:
  using MakeCalls = std::function<std::vector<KernelCall>(Device&)>;

  // Collective, as are all measurements. setting outlives the tables. quick: no waiting for a quiet
  // moment.
  RateTables(Group& world, bool quick, MachineSetting& setting);

  // Adds the rates of the kernels that `make` gives, at the next point of their tables. Where there
  // are more operations than are worth the time, the rate is that of the point `back` points
  // before, which has fewer rows.
  void measure_point(const std::vector<std::vector<double>>& axes, std::size_t back,
                     const MakeCalls& make);
  // Of the points since the last time: those far below their neighbours in the table. A disturbance
  // only makes slower, and lasts for all repetitions of a point, so the better time counts.
  void measure_outliers_again();
  // A kernel by its bytes at so many rows.
  void measure_loop(const LoopCase& loop, DType dtype, const std::vector<std::int64_t>& loop_rows);

  const Device& device() const { return *device_; }

 private:
  // A kernel at a point.
  struct Point {
    MakeCalls make;
    std::size_t which;  // of its calls
    RateTable* table;
    std::size_t index;  // in the table
    double flops;
    double bytes;  // of the largest of the calls
  };
  struct Copy {
    RateTable* table;
    std::size_t from;
    std::size_t to;
  };

  // What a step's record would have of each call.
  std::vector<WorkUnit> units_of(const MakeCalls& make);

  QuietTimer timer_;
  MachineSetting& setting_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Device> plan_;
  std::vector<Point> points_;
  std::vector<Copy> copies_;
};

// Geometric mean of the rates beside a point, along each axis of the table.
double rate_beside(const RateTable& table, std::size_t index);

}  // namespace switchyard::bench
