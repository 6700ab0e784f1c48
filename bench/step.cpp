#include "bench/step.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "bench/disturbance.hpp"
#include "kernels/threads.hpp"
#include "parallel/cores.hpp"
#include "trainer/number_text.hpp"
#include "trainer/plan.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/run_device.hpp"

namespace switchyard::bench {

namespace {

// One step: seconds from start to end, and of each part, as means over the ranks.
struct Sample {
  double seconds = 0;
  std::array<double, num_parts> parts{};
};

Sample time_step(Trainer& trainer, BatchSource& source, std::int64_t step, Group& world) {
  world.barrier();
  Profile& profile = trainer.device().profile();
  profile.reset();
  trainer.step(step, source);
  std::array<double, num_parts + 1> values{};
  for (int part = 0; part < num_parts; ++part)
    values[static_cast<std::size_t>(part)] = profile.seconds(static_cast<Part>(part));
  values[num_parts] = profile.total_seconds();
  world.all_reduce_values(values, ReduceOp::sum);
  Sample sample;
  for (std::size_t part = 0; part < num_parts; ++part)
    sample.parts[part] = values[part] / world.size();
  sample.seconds = values[num_parts] / world.size();
  return sample;
}

// The steps of a measurement, the fastest first.
std::vector<Sample> time_steps(RankState& rank, BatchSource& source, std::int64_t first,
                               const Repeats& repeats, Group& world) {
  std::vector<Sample> samples;
  for (int step = 0; step < repeats.num_warmup + repeats.num_steps; ++step) {
    const Sample sample = time_step(rank.trainer, source, first + step, world);
    if (step >= repeats.num_warmup) samples.push_back(sample);
  }
  std::ranges::sort(samples, {}, &Sample::seconds);
  return samples;
}

// A step that happened, not a mean of two, so that its parts add up.
const Sample& median_of(const std::vector<Sample>& samples) {
  return samples[samples.size() / 2];
}

// All ranks' operations of one part of a step, as planned.
double planned_flops(const Plan& plan, std::size_t part) {
  double flops = 0;
  for (const RankPlan& rank : plan.ranks) flops += rank.step[part].flops;
  return flops * plan.num_ranks / static_cast<double>(plan.ranks.size());
}

void describe(Report& report, const Config& config, const std::string& name, const Plan& plan,
              const Repeats& repeats) {
  report.note(fmt::format("{}: {} parameters, {} active; {} tokens a step; {}; data {}, expert {}",
                          name, format_count(static_cast<double>(plan.num_parameters)),
                          format_count(static_cast<double>(plan.num_active_parameters)),
                          plan.tokens_per_step, name_of(config.run.precision), plan.parallel.data,
                          plan.parallel.expert));
  report.note(fmt::format(
      "seconds: mean over ranks, in the median of {} steps after {} of warm-up{}",
      repeats.num_steps, repeats.num_warmup,
      repeats.num_warmup == 0 ? " (a process's first step also pays for its memory)" : ""));
  report.note(
      "GFLOP: of the model, all ranks, as the planner counts them; \"-\" where there are few");
  report.fact("config", name);
  report.fact("precision", std::string(name_of(config.run.precision)));
  report.fact("num_parameters", plan.num_parameters);
  report.fact("tokens_per_step", plan.tokens_per_step);
  report.fact("data", plan.parallel.data);
  report.fact("expert", plan.parallel.expert);
}

// A row for each part and one for the step. Rates stand where arithmetic is what takes the time.
void add_rows(Report& report, const Plan& plan, const Sample& median, double peak) {
  report.columns({{"part", "part", -12},
                  {"seconds", "seconds", 10, 1, 4},
                  {.heading = "% of step", .key = "step_share", .width = 11, .scale = 100},
                  {.heading = "GFLOP", .key = "flops", .width = 10, .scale = 1e-9},
                  rate_column(),
                  share_column()});
  const auto add = [&](const std::string& part, double seconds, double flops) {
    const bool has_products = flops > 0.001 * plan.step_flops() && seconds > 0;
    const double rate = has_products ? flops / seconds : 0;
    report.row({part, seconds, seconds / median.seconds, has_products ? Value(flops) : Value(),
                has_products ? Value(rate) : Value(), has_products ? Value(rate / peak) : Value()});
  };
  for (std::size_t part = 0; part < num_parts; ++part)
    add(std::string(name_of(static_cast<Part>(part))), median.parts[part],
        planned_flops(plan, part));
  add("step", median.seconds, plan.step_flops());
}

void add_summary(Report& report, const Plan& plan, const Sample& median, const Times& times,
                 double peak) {
  const double rate = plan.step_flops() / median.seconds;
  const double tokens_per_second = static_cast<double>(plan.tokens_per_step) / median.seconds;
  report.line(fmt::format("step         {:.3f} s median, {:.3f} s fastest, {:.3f} s slowest",
                          times.median, times.min, times.max));
  report.line(
      fmt::format("throughput   {:.1f} tokens/s, {:.1f} GFLOP/s of the model, {:.1f}% of "
                  "the ceiling",
                  tokens_per_second, rate / 1e9, 100 * rate / peak));
  report.line(fmt::format("lower bound  {:.3f} s a step: its GFLOP at the ceiling's rate",
                          plan.step_flops() / peak));
  report.fact("tokens_per_second", tokens_per_second);
  report.fact("model_flops_per_second", rate);
  report.fact("peak_share", rate / peak);
  report.fact("min_seconds", times.min);
  report.fact("median_seconds", times.median);
  report.fact("max_seconds", times.max);
}

void add_memory(Report& report, Trainer& trainer) {
  const std::int64_t rows = trainer.agree_on_rows();       // collective
  const std::int64_t bytes = trainer.peak_memory_bytes();  // likewise
  report.line(
      fmt::format("memory       {} on the fullest rank; at most {} rows at the experts of a "
                  "rank and layer",
                  format_bytes(static_cast<double>(bytes)), rows));
  report.fact("memory_bytes", bytes);
  report.fact("max_rows", rows);
}

// The steps again, beside a program on the last processor of rank 0.
std::vector<Sample> time_disturbed_steps(RankState& rank, BatchSource& source, std::int64_t first,
                                         const Repeats& repeats, Group& world) {
  std::optional<Disturbance> disturbance;
  if (world.rank() == 0) disturbance.emplace(Cores::of_this_process().processors.back());
  return time_steps(rank, source, first, {1, repeats.num_steps}, world);
}

void add_disturbed(Report& report, Group& world, double alone, const std::vector<Sample>& samples) {
  const double disturbed = median_of(samples).seconds;
  const SchedulingFloor floor = scheduling_floor(num_cores_for_rank(world), kernels::num_threads());
  report.line(
      fmt::format("disturbed    {:.3f} s median beside a busy program on one core: {:.2f} times "
                  "the undisturbed "
                  "{:.3f} s; scheduling alone makes {:.2f} to {:.2f}",
                  disturbed, disturbed / alone, alone, floor.least, floor.most));
  report.fact("disturbed_seconds", disturbed);
  report.fact("disturbed_ratio", disturbed / alone);
  report.fact("disturbed_floor_least", floor.least);
  report.fact("disturbed_floor_most", floor.most);
}

}  // namespace

void run_step(Group& world, CollectiveLog& log, const Config& given, const std::string& name,
              const Repeats& repeats, bool disturb, const Output& output) {
  if (given.experts.router.replays())
    throw ConfigError(
        "experts.router.replay: bench step has made-up tokens, which no trace knows; leave it out, "
        "or write kind balanced or imbalanced for a given load");
  set_threads(given.run, world);
  Config config = given;
  config.parallel = resolved_parallel(config, world.size());
  if (config.model.vocab_size == 0) config.model.vocab_size = 257;
  const std::int64_t vocab_size = config.model.vocab_size;
  config.run.device = resolved_device(config, world);
  std::unique_ptr<Device> device = make_device_together(world, config);
  const Plan plan = make_plan(config, world.size(), vocab_size);
  require_memory(world, config, plan);
  Report report(world, output, "step");
  describe(report, config, name, plan, repeats);
  report.note("device: " + describe_device(*device));
  RankState rank(world, log, config, std::move(device), vocab_size);
  RandomSource source(rank.trainer.batch_layout(), vocab_size,
                      static_cast<std::uint64_t>(config.run.seed));
  const DType compute = compute_dtype(config.run);
  const double peak = measure_products(world, *rank.device, compute);
  report.ceiling(std::string(precision_name(compute)) + " products", peak, "FLOP/s");

  const std::vector<Sample> samples = time_steps(rank, source, 1, repeats, world);
  const Sample& median = median_of(samples);
  add_rows(report, plan, median, peak);
  add_summary(report, plan, median,
              {samples.front().seconds, median.seconds, samples.back().seconds}, peak);
  if (disturb) {
    const std::int64_t next = 1 + repeats.num_warmup + repeats.num_steps;
    add_disturbed(report, world, median.seconds,
                  time_disturbed_steps(rank, source, next, repeats, world));
  }
  add_memory(report, rank.trainer);
  report.finish();
}

}  // namespace switchyard::bench
