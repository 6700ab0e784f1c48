#include "bench/ring.hpp"

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <optional>
#include <thread>

#include "kernels/threads.hpp"
#include "parallel/context/context_attention.hpp"

namespace switchyard::bench {

namespace {

ParallelConfig config_of(const RingOptions& options, std::int64_t num_ranks) {
  ParallelConfig config;
  config.context = num_ranks;
  config.context_split.ulysses = options.ulysses;
  config.context_split.method = options.method;
  config.context_split.exact = options.exact;
  return config;
}

AttentionSizes sizes_of(const RingOptions& options) {
  return {.num_sequences = 1,
          .num_heads = options.num_heads,
          .num_kv_heads = options.num_kv_heads,
          .head_dim = options.head_dim,
          .scale = 1.0f / std::sqrt(static_cast<float>(options.head_dim))};
}

// One sequence, shared by the ranks of a mesh.
class Problem {
 public:
  Problem(Device& device, const Mesh& mesh, const RingOptions& options, DType precision,
          std::int64_t length)
      : device_(device),
        window_(options.window),
        split_(length, mesh.degree(Axis::context_ring), mesh.degree(Axis::context_ulysses),
               options.layout, false),
        attention_(device, mesh, sizes_of(options), precision, split_, {&window_, 1},
                   options.progress),
        lse_(device, Purpose::activation, DType::f32,
             {split_.num_local(mesh.index(Axis::context)), options.num_heads}) {
    for (Tensor* each : {&q_, &out_, &dout_, &dq_})
      *each = Tensor(device, Purpose::activation, precision,
                     {lse_->rows(), options.num_heads * options.head_dim});
    for (Tensor* each : {&k_, &v_, &dk_, &dv_})
      *each = Tensor(device, Purpose::activation, precision,
                     {lse_->rows(), options.num_kv_heads * options.head_dim});
    std::uint32_t stream = 0;
    for (const Tensor* each : {&q_, &k_, &v_, &dout_}) fill_random(*each, stream++);
    forward();  // the backward pass reads its results
  }

  void forward() {
    attention_.forward(window_, {}, q_, k_, v_, out_, lse_, {});
    ++num_calls_;
  }
  void backward() {
    attention_.backward(window_, {}, TensorView{}, q_, k_, v_, out_, lse_, dout_, dq_, dk_, dv_,
                        {});
    ++num_calls_;
  }

  void start_counting() {
    num_calls_ = 0;
    attention_.reset_wait_seconds();
    device_.profile().reset();
  }
  // Of this rank, a call.
  double wait_seconds() const {
    return attention_.wait_seconds() / static_cast<double>(num_calls_);
  }
  Work work() const {
    Work work = device_.profile().total_work();
    work.flops /= static_cast<double>(num_calls_);
    work.wire_bytes /= static_cast<double>(num_calls_);
    return work;
  }

 private:
  Device& device_;
  kernels::KeyPattern window_;
  SequenceSplit split_;
  ContextAttention attention_;
  Tensor lse_;
  Tensor q_, k_, v_, out_, dout_, dq_, dk_, dv_;
  std::int64_t num_calls_ = 0;
};

struct Operation {
  const char* name;
  void (Problem::*run)();
};
constexpr Operation operations[] = {{"forward", &Problem::forward},
                                    {"backward", &Problem::backward}};
constexpr std::size_t num_operations = 2;

double of_all(Group& world, double value, ReduceOp op) {
  world.all_reduce_values({&value, 1}, op);
  return value;
}

// Seconds of a call on rank 0 while the other ranks sleep.
double seconds_alone(Group& world, Group& alone, const Repeats& repeats,
                     const std::function<void()>& call) {
  using namespace std::chrono_literals;
  double seconds = 0;
  const std::unique_ptr<Device> device = make_cpu_device();
  const Tensor token(*device, Purpose::communication, DType::i32, {1});
  if (world.rank() == 0) {
    seconds = measure(alone, repeats, call).median;
    world.broadcast(token, 0);
  } else {
    Event done = world.start_broadcast(token, 0);
    while (!done.test()) std::this_thread::sleep_for(5ms);
  }
  return of_all(world, seconds, ReduceOp::max);
}

// What one rank does with the whole sequence: FLOP/s of all ranks at once, each with its own, and
// of one while the others sleep.
struct WholeRates {
  double flops = 0;  // of a call
  double at_once = 0;
  double alone = 0;
};

std::vector<WholeRates> measure_whole(Group& world, const RingOptions& options, DType precision,
                                      std::int64_t length, const Repeats& repeats) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  const Mesh mesh(*alone, {});
  const std::unique_ptr<Device> device = make_cpu_device();
  const std::unique_ptr<Device> plan = make_plan_device();
  RingOptions whole = options;
  whole.progress = Progress::none;
  Problem problem(*device, mesh, whole, precision, length);
  const Mesh planned_mesh(*plan, 0, 1, {});
  Problem planned(*plan, planned_mesh, whole, precision, length);
  std::vector<WholeRates> rates;
  for (const Operation& operation : operations) {
    planned.start_counting();
    (planned.*operation.run)();
    const double flops = planned.work().flops;
    const auto call = [&] { (problem.*operation.run)(); };
    rates.push_back({flops, world.size() * flops / measure(world, repeats, call).median,
                     flops / seconds_alone(world, *alone, repeats, call)});
  }
  return rates;
}

// Bytes a second that each rank sends to the next while nobody computes: blocks as they travel.
double measure_link(Group& ring, Group& world, const Repeats& repeats) {
  constexpr std::int64_t bytes = 16 << 20;
  const std::unique_ptr<Device> device = make_cpu_device();
  const Tensor sent(*device, Purpose::communication, DType::u8, {bytes});
  const Tensor received(*device, Purpose::communication, DType::u8, {bytes});
  const int next = (ring.rank() + 1) % ring.size();
  const int previous = (ring.rank() + ring.size() - 1) % ring.size();
  const Times times =
      measure(world, repeats, [&] { ring.send_receive(sent, next, received, previous); });
  return static_cast<double>(bytes) / times.median;
}

// From how many positions a rank on the zigzag ring hides its messages (docs/parallelism.md).
double length_to_hide(const RingOptions& options, DType precision, bool backward, double rank_flops,
                      double link_bytes) {
  const double group =
      static_cast<double>(options.num_heads) / static_cast<double>(options.num_kv_heads);
  const double b = static_cast<double>(size_of(precision));
  // FLOPs of a pair are those that the rate counts: 4 head_dim forward, 8 backward.
  const double per_flop = backward ? (2 * b + 8) / 4 : b;
  return per_flop * rank_flops / link_bytes / group;
}

class RingBenchmark {
 public:
  RingBenchmark(Group& world, const RingOptions& options, const Repeats& repeats, Report& report)
      : world_(world),
        options_(options),
        repeats_(repeats),
        report_(report),
        mesh_(world, config_of(options, world.size())) {
    if (mesh_.degree(Axis::context_ring) > 1) {
      link_bytes_ = measure_link(mesh_.group(Axis::context_ring), world, repeats);
      report.note(fmt::format("link: {:.3f} GB/s from a rank to the next while nobody computes",
                              link_bytes_ / 1e9));
      report.fact("link_bytes_per_second", link_bytes_);
    }
  }

  void measure_length(DType precision, std::int64_t length) {
    const std::vector<WholeRates> whole =
        measure_whole(world_, options_, precision, length, repeats_);
    const std::unique_ptr<Device> device = make_cpu_device();
    Problem problem(*device, mesh_, options_, precision, length);
    for (std::size_t i = 0; i < num_operations; ++i) {
      problem.start_counting();
      const Times times = measure(world_, repeats_, [&] { (problem.*operations[i].run)(); });
      add_row(precision, length, i, whole[i], times, problem);
    }
  }

 private:
  void add_row(DType precision, std::int64_t length, std::size_t operation, const WholeRates& whole,
               const Times& times, const Problem& problem) {
    const int num_ranks = world_.size();
    const double rate = whole.flops / times.median;
    const double wait = of_all(world_, problem.wait_seconds(), ReduceOp::max);
    const double bytes = of_all(world_, problem.work().wire_bytes, ReduceOp::max);
    std::vector<Value> row{std::string(precision_name(precision)), length,
                           std::string(operations[operation].name)};
    append(row, times);
    row.insert(row.end(), {rate, whole.at_once, rate / whole.at_once,
                           rate / (num_ranks * whole.alone), bytes, wait});
    if (link_bytes_ > 0 && options_.window == 0 && options_.method == ContextMethod::ring)
      row.emplace_back(std::ceil(length_to_hide(options_, precision, operation == 1,
                                                whole.at_once / num_ranks, link_bytes_) *
                                 num_ranks));
    else
      row.emplace_back();
    report_.row(row);
  }

  Group& world_;
  const RingOptions& options_;
  Repeats repeats_;
  Report& report_;
  Mesh mesh_;
  double link_bytes_ = 0;  // 0: no ring
};

std::string scheme_text(const RingOptions& options, int num_ranks) {
  return fmt::format("{}{} {} x ulysses {}, {}, progress by {}", options.exact ? "exact " : "",
                     name_of(options.method), num_ranks / options.ulysses, options.ulysses,
                     name_of(options.layout), name_of(options.progress));
}

std::vector<Column> columns_of_report() {
  std::vector<Column> columns{
      {"type", "precision", -6}, {"length", "length", 8}, {"operation", "operation", -9}};
  for (const Column& column : time_columns("ms")) columns.push_back(column);
  columns.insert(
      columns.end(),
      {{.heading = "TFLOP/s", .key = "flops_per_second", .scale = 1e-12, .num_decimals = 3},
       {.heading = "one rank",
        .key = "one_rank_flops_per_second",
        .scale = 1e-12,
        .num_decimals = 3},
       {.heading = "% of that", .key = "one_rank_share", .scale = 100},
       {.heading = "% of alone", .key = "alone_share", .width = 11, .scale = 100},
       {.heading = "MB sent", .key = "wire_bytes", .scale = 1e-6, .num_decimals = 2},
       {.heading = "wait ms", .key = "wait_seconds", .scale = 1e3, .num_decimals = 2},
       {.heading = "hides at", .key = "length_to_hide", .num_decimals = 0}});
  return columns;
}

}  // namespace

void run_ring(Group& world, const RingOptions& options, const Repeats& repeats,
              const Output& output) {
  require_none(head_mistakes(options.num_heads, options.num_kv_heads, options.ulysses));
  for (const std::int64_t length : options.lengths)  // refused before anything is measured
    static_cast<void>(SequenceSplit(length, world.size() / options.ulysses, options.ulysses,
                                    options.layout, false));
  Report report(world, output, "ring");
  report.note(fmt::format("one sequence of {} heads, {} kv heads, head_dim {}{}; {}",
                          options.num_heads, options.num_kv_heads, options.head_dim,
                          options.window > 0 ? fmt::format(", window {}", options.window) : "",
                          scheme_text(options, world.size())));
  report.note(
      "TFLOP/s: of all ranks together; a pair of a query and a key that it sees counts 4 head_dim "
      "FLOPs forward, 8 backward");
  report.note(
      "one rank: ranks x the rate of one that has the whole sequence, all ranks at once with one "
      "each; alone: while the others sleep");
  report.note(
      "MB sent, wait: of the rank that sends, and that only waits, most; hides at: the length from "
      "which the wire hides, by the formula");
  report.fact("scheme", scheme_text(options, world.size()));
  RingBenchmark benchmark(world, options, repeats, report);
  report.columns(columns_of_report());
  for (const DType precision : options.precisions)
    for (const std::int64_t length : options.lengths) benchmark.measure_length(precision, length);
  report.finish();
}

}  // namespace switchyard::bench
