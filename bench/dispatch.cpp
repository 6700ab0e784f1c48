#include "bench/dispatch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "experts/dispatch/dispatcher.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/routing/permute.hpp"
#include "tensor/error.hpp"

namespace switchyard::bench {

namespace {

ExpertsConfig config_of(const DispatchSize& size, DispatchKind kind) {
  ExpertsConfig config;
  config.num_experts = size.num_experts;
  config.top_k = size.top_k;
  config.dispatch.kind = kind;
  return config;
}

// One kind of dispatch with a route of its own, and the bare exchanges of it.
class Problem {
 public:
  Problem(Group& group, Device& device, const DispatchSize& size, DType precision,
          DispatchKind kind)
      : group_(group),
        size_(size),
        placement_(Placement::contiguous(size.num_experts, group.size())),
        dispatcher_(group, placement_, size.top_k, {}, config_of(size, kind).dispatch),
        scratch_(device, placement_, config_of(size, kind), size.hidden, precision, size.num_tokens,
                 capacity_),
        route_(dispatcher_.make_route(device, size.num_tokens)),
        indices_(device, Purpose::workspace, DType::i32, {size.num_tokens, size.top_k}),
        weights_(device, Purpose::workspace, DType::f32, {size.num_tokens, size.top_k}),
        x_(device, Purpose::activation, precision, {size.num_tokens, size.hidden}),
        y_(device, Purpose::activation, precision, {size.num_tokens, size.hidden}),
        returned_(device, Purpose::activation, precision,
                  {size.num_tokens * size.top_k, size.hidden}),
        rows_(Tensor::growable(device, Purpose::activation, precision,
                               {dispatcher_.most_rows(size.num_tokens), size.hidden})) {
    route_.for_each_tensor(capacity_.adder());
    capacity_.add(rows_);
    fill_random(x_, 0);
    fill_random(weights_, 1);
  }

  // chosen: the experts of this rank's tokens, [T, k].
  void use(std::span<const std::int32_t> chosen) {
    kernels::copy_from_host<std::int32_t>(chosen, indices_);
    dispatcher_.route({.indices = indices_}, route_, scratch_, capacity_);
    copied_ = Tensor(*x_->device, Purpose::workspace, DType::u8, {copied_bytes()});
    copy_ = Tensor(*x_->device, Purpose::workspace, DType::u8, {copied_bytes()});
  }
  std::int64_t num_rows() const { return route_.num_rows; }

  // There and back.
  void run() {
    const TensorView rows = rows_->slice_rows(0, route_.num_rows);
    const TensorView slots = returned_->slice_rows(0, route_.num_sent);
    dispatcher_.start_dispatch(x_, route_, scratch_, rows).finish();
    dispatcher_
        .start_from_experts(rows, route_, scratch_.arrival->slice_rows(0, route_.num_rows), slots)
        .finish();
    kernels::combine_rows(slots, route_.row_of_slot, weights_, y_);
  }

  // The same bytes between the same ranks, from where they lie to where they fit.
  void exchange() {
    const DeliveryCounts& tokens = route_.delivery;
    const RowRanges to = rows_to_ranks(route_, placement_, {});
    const RowRanges from = rows_from_ranks(route_, group_.size(), {});
    if (tokens.leaving.count.empty()) {
      move(to, from);
    } else {
      move(tokens.leaving, tokens.arriving);
      if (!tokens.forwarded.count.empty()) move(tokens.forwarded, tokens.delivered);
    }
    move(from, to);
  }
  // Each row that is sent or received, both ways, copied once by one thread.
  void copy() {
    std::memcpy(copy_->host_bytes(), copied_->host_bytes(),
                static_cast<std::size_t>(copied_bytes()));
  }
  double bytes_sent() {
    Profile& profile = x_->device->profile();
    profile.reset();
    run();
    return profile.total_work().wire_bytes;
  }

 private:
  std::int64_t copied_bytes() const {
    return (route_.num_sent + route_.num_rows) * size_.hidden * size_of(x_->dtype);
  }
  static std::int64_t end_of(const RowRanges& ranges) {
    std::int64_t end = 0;
    for (std::size_t p = 0; p < ranges.first.size(); ++p)
      end = std::max(end, ranges.first[p] + ranges.count[p]);
    return end;
  }
  // Room of the bare exchanges, which grows.
  TensorView room(Tensor& buffer, std::int64_t num_rows) {
    if (buffer.empty() || buffer->rows() < num_rows)
      buffer = Tensor(*x_->device, Purpose::workspace, x_->dtype, {num_rows, size_.hidden});
    return buffer->slice_rows(0, num_rows);
  }
  void move(const RowRanges& to, const RowRanges& from) {
    const TensorView sent = room(bare_sent_, end_of(to)),
                     received = room(bare_received_, end_of(from));
    group_.start_all_to_all_v(sent, {to.first, to.count}, received, {from.first, from.count})
        .wait_host();
  }

  Group& group_;
  DispatchSize size_;
  Placement placement_;
  RowCapacity capacity_;
  Dispatcher dispatcher_;
  DispatchScratch scratch_;
  Route route_;
  Tensor indices_, weights_, x_, y_, returned_, rows_;
  Tensor copied_, copy_, bare_sent_, bare_received_;
};

struct Load {
  std::string name;
  std::vector<std::int32_t> chosen;
};

std::vector<Load> loads_of(const DispatchSize& size, const std::optional<TracedChoices>& traced,
                           int rank) {
  std::vector<Load> loads;
  for (const Choices choices : {Choices::balanced, Choices::skewed, Choices::worst})
    loads.push_back({std::string(name_of(choices)), choices_of(size, choices, rank)});
  if (traced) loads.push_back({"traced", traced->of_rank(rank, size.num_tokens)});
  return loads;
}

void measure_kind(Group& world, const DispatchSize& size, std::span<const Load> loads,
                  DType precision, DispatchKind kind, const Repeats& repeats, Report& report) {
  const std::unique_ptr<Device> device = make_cpu_device();
  Problem problem(world, *device, size, precision, kind);
  for (const Load& load : loads) {
    problem.use(load.chosen);
    std::int64_t fullest = problem.num_rows();
    world.all_reduce_values(std::span(&fullest, 1), ReduceOp::max);
    double bytes = problem.bytes_sent();
    world.all_reduce_values(std::span(&bytes, 1), ReduceOp::max);
    const Times times = measure(world, repeats, [&] { problem.run(); });
    const Times exchanges = measure(world, repeats, [&] { problem.exchange(); });
    const Times copies = measure(world, repeats, [&] { problem.copy(); });
    const double ceiling = exchanges.median + copies.median;
    std::vector<Value> row{std::string(precision_name(precision)),
                           size.num_tokens,
                           size.hidden,
                           size.num_experts,
                           size.top_k,
                           std::string(name_of(kind)),
                           load.name,
                           fullest,
                           bytes};
    append(row, times);
    row.insert(row.end(),
               {exchanges.median, copies.median, ceiling / times.median, times.median / ceiling});
    report.row(row);
  }
}

}  // namespace

std::vector<std::int32_t> choices_of(const DispatchSize& size, Choices choices, int rank) {
  std::vector<std::int32_t> chosen;
  std::mt19937 random(static_cast<std::uint32_t>(rank + 1));
  std::vector<double> shares;
  for (std::int64_t e = 0; e < size.num_experts; ++e)
    shares.push_back(1.0 / static_cast<double>(e + 1));
  for (std::int64_t t = 0; t < size.num_tokens; ++t) {
    std::vector<double> left = shares;
    for (std::int64_t j = 0; j < size.top_k; ++j) {
      std::int64_t expert = j;
      if (choices == Choices::balanced) expert = (t * size.top_k + j) % size.num_experts;
      if (choices == Choices::skewed) {
        expert = std::discrete_distribution<std::int64_t>(left.begin(), left.end())(random);
        left[static_cast<std::size_t>(expert)] = 0;
      }
      chosen.push_back(static_cast<std::int32_t>(expert));
    }
  }
  return chosen;
}

void run_dispatch(Group& world, const DispatchOptions& options, const Repeats& repeats,
                  const Output& output) {
  expect(world.size() >= 2, "at least two ranks");
  Report report(world, output, "dispatch");
  report.note("tokens to the ranks of their experts, the same rows back, and their sum by token");
  report.note(
      "the ceiling: the bare exchanges of the same bytes, and every row that is sent or received, "
      "both ways, copied once by one thread");
  report.note(
      "skewed: expert e is chosen as 1 / (e + 1); worst: the first top_k experts; fullest: rows of "
      "the fullest rank; sent: by the rank that sends most");
  if (options.traced)
    report.note(fmt::format(
        "traced: what layer {} chose in step {}, its most chosen expert {:.2f} times as often as "
        "the mean",
        options.traced->layer, options.traced->step, options.traced->max_over_mean));
  std::vector<Column> columns{
      {"type", "precision", -6},
      {"tokens", "num_tokens", 7},
      {"hidden", "hidden", 7},
      {"experts", "num_experts", 7},
      {"top_k", "top_k", 5},
      {"kind", "kind", -12},
      {"choices", "choices", -9},
      {"fullest", "fullest_rows", 8},
      {.heading = "sent MB", .key = "bytes_sent", .width = 9, .scale = 1e-6}};
  for (const Column& column : time_columns("ms")) columns.push_back(column);
  columns.insert(
      columns.end(),
      {{.heading = "exchange ms",
        .key = "exchange_seconds",
        .width = 11,
        .scale = 1e3,
        .num_decimals = 2},
       {.heading = "copy ms", .key = "copy_seconds", .width = 8, .scale = 1e3, .num_decimals = 2},
       share_column(),
       {.heading = "x ceiling", .key = "times_ceiling", .width = 9, .num_decimals = 2}});
  report.columns(columns);
  for (const DType precision : options.precisions)
    for (const DispatchSize& size : options.sizes) {
      const std::vector<Load> loads = loads_of(size, options.traced, world.rank());
      for (const DispatchKind kind :
           {DispatchKind::all_to_all, DispatchKind::all_gather, DispatchKind::hierarchical})
        measure_kind(world, size, loads, precision, kind, repeats, report);
    }
  report.finish();
}

}  // namespace switchyard::bench
