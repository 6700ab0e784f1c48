#include "bench/all_to_all.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"

namespace switchyard::bench {

namespace {

constexpr std::int64_t row_elements = 4;  // i32: 16 bytes a row

// What element i of the part from one rank to another must be.
std::int32_t element(int from, int to, std::int64_t i) {
  return static_cast<std::int32_t>(
      (std::int64_t{from} * 1'000'003 + std::int64_t{to} * 10'007 + i) % 2'147'483'647);
}

// Equal parts for all ranks of the group.
class Problem {
 public:
  Problem(Group& group, Device& device, std::int64_t bytes)
      : group_(group),
        part_rows_(std::max<std::int64_t>(1, bytes / group.size() / (row_elements * 4))),
        send_(device, Purpose::communication, DType::i32, shape()),
        recv_(device, Purpose::communication, DType::i32, shape()),
        rows_(static_cast<std::size_t>(group.size()), part_rows_) {
    for (int to = 0; to < group.size(); ++to)
      for (std::int64_t i = 0; i < part_elements(); ++i)
        part(send_, to)[i] = element(group.rank(), to, i);
  }

  std::int64_t num_bytes() const { return send_->num_bytes(); }
  void exchange() { group_.all_to_all_v(send_, rows_, recv_, rows_); }
  void copy() {
    std::memcpy(recv_->host_bytes(), send_->host_bytes(),
                static_cast<std::size_t>(send_->num_bytes()));
  }
  // Elements of all ranks that a fresh exchange delivers wrong. Collective.
  std::int64_t num_wrong() {
    std::ranges::fill(recv_->host_span<std::int32_t>(), -1);
    exchange();
    double wrong = 0;
    for (int from = 0; from < group_.size(); ++from)
      for (std::int64_t i = 0; i < part_elements(); ++i)
        if (part(recv_, from)[i] != element(from, group_.rank(), i)) ++wrong;
    group_.all_reduce_values({&wrong, 1}, ReduceOp::sum);
    return static_cast<std::int64_t>(wrong);
  }

 private:
  Shape shape() const { return {part_rows_ * group_.size(), row_elements}; }
  std::int64_t part_elements() const { return part_rows_ * row_elements; }
  std::int32_t* part(const Tensor& whole, int rank) const {
    return whole->host<std::int32_t>() + rank * part_elements();
  }

  Group& group_;
  std::int64_t part_rows_;
  Tensor send_;
  Tensor recv_;
  std::vector<std::int64_t> rows_;  // to, and from, each rank
};

}  // namespace

void run_all_to_all(Group& world, const AllToAllOptions& options, const Repeats& repeats,
                    const Output& output) {
  expect(world.size() >= 2, "at least two ranks");
  Report report(world, output, "all_to_all");
  report.note(fmt::format(
      "equal parts to all {0} ranks; a rank keeps its own, so {1}/{0} of its bytes leave it",
      world.size(), world.size() - 1));
  report.note(
      "copy GB/s: the ceiling, a rank's bytes copied by one thread within its memory, the "
      "best of this run, all ranks at once");
  report.note("wrong: elements, of all ranks, that are not what their sender computed");
  std::vector<Column> columns{{"bytes/rank", "bytes_per_rank", 11}};
  for (const Column& column : time_columns("us")) columns.push_back(column);
  columns.insert(
      columns.end(),
      {{.heading = "GB/s", .key = "bytes_per_second", .scale = 1e-9, .num_decimals = 3},
       {.heading = "copy GB/s", .key = "copy_bytes_per_second", .scale = 1e-9, .num_decimals = 3},
       share_column(),
       {"wrong", "num_wrong", 8}});
  report.columns(columns);
  const std::unique_ptr<Device> device = make_cpu_device();
  std::int64_t all_wrong = 0;
  for (const std::int64_t size : options.sizes) {
    Problem problem(world, *device, size);
    const Times times = measure(world, repeats, [&] { problem.exchange(); });
    const Times copies = measure(world, repeats, [&] { problem.copy(); });
    const std::int64_t wrong = problem.num_wrong();
    const auto bytes = static_cast<double>(problem.num_bytes());
    std::vector<Value> row{problem.num_bytes()};
    append(row, times);
    row.insert(row.end(),
               {bytes / times.median, bytes / copies.min, copies.min / times.median, wrong});
    report.row(row);
    all_wrong += wrong;
  }
  report.finish();
  if (all_wrong > 0)
    throw Collective<InternalError>(
        fmt::format("all_to_all delivered {} elements wrong", all_wrong));
}

}  // namespace switchyard::bench
