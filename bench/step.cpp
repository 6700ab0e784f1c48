#include "bench/step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/machine.hpp"
#include "kernels/peak.hpp"
#include "trainer/plan.hpp"
#include "trainer/progress.hpp"
#include "trainer/run_setup.hpp"

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
  for (std::size_t part = 0; part < num_parts; ++part) sample.parts[part] = values[part] / world.size();
  sample.seconds = values[num_parts] / world.size();
  return sample;
}

struct Report {
  Sample median;
  double fastest = 0;
  double slowest = 0;
  double peak = 0;  // FLOP/s of all ranks, for the products of the run's precision
  double max_rows = 0;
  double memory_bytes = 0;
};

void print_text(Group& world, const Config& config, const std::string& name, const Plan& plan,
                const Report& report, const StepOptions& options) {
  const double tokens = static_cast<double>(plan.tokens_per_step);
  const double flops = plan.step_flops();
  const double seconds = report.median.seconds;
  std::string out = fmt::format("# switchyard bench step: {}\n{}", name, describe_machine(world));
  out += fmt::format("# {} parameters, {} active; {} tokens a step; {}; data {}, expert {}\n",
                     format_count(static_cast<double>(plan.num_parameters)),
                     format_count(static_cast<double>(plan.num_active_parameters)),
                     plan.tokens_per_step, config.run.precision, plan.parallel.data,
                     plan.parallel.expert);
  out += fmt::format("# ceiling: {} products at {:.1f} GFLOP/s, measured in this run on all ranks at once\n",
                     config.run.precision, report.peak / 1e9);
  out += fmt::format("# median of {} steps after {} (fastest {:.3f} s, slowest {:.3f} s)\n",
                     options.num_steps, options.num_warmup, report.fastest, report.slowest);
  out += fmt::format("{:<12}{:>10}{:>9}{:>12}{:>12}{:>14}\n", "part", "seconds", "share", "GFLOP",
                     "GFLOP/s", "% of ceiling");
  for (std::size_t part = 0; part < num_parts; ++part) {
    double part_flops = 0;
    for (const RankPlan& rank : plan.ranks) part_flops += rank.step[part].flops;
    part_flops *= plan.num_ranks / static_cast<double>(plan.ranks.size());
    const double part_seconds = report.median.parts[part];
    const double rate = part_seconds > 0 ? part_flops / part_seconds : 0;
    out += fmt::format("{:<12}{:>10.4f}{:>8.1f}%{:>12.1f}{:>12.1f}{:>13.1f}%\n",
                       name_of(static_cast<Part>(part)), part_seconds, 100 * part_seconds / seconds,
                       part_flops / 1e9, rate / 1e9, 100 * rate / report.peak);
  }
  out += fmt::format("{:<12}{:>10.4f}{:>8.1f}%{:>12.1f}{:>12.1f}{:>13.1f}%\n", "step", seconds, 100.0,
                     flops / 1e9, flops / seconds / 1e9, 100 * flops / seconds / report.peak);
  out += fmt::format("tokens/s {:.1f}   model {:.1f} GFLOP/s   {:.1f}% of the ceiling   floor of the products {:.3f} s\n",
                     tokens / seconds, flops / seconds / 1e9, 100 * flops / seconds / report.peak,
                     flops / report.peak);
  out += fmt::format("memory {} on the fullest rank (max_rows {})\n", format_bytes(report.memory_bytes),
                     report.max_rows);
  std::cout << out << std::flush;
}

void print_json(Group& world, const Config& config, const std::string& name, const Plan& plan,
                const Report& report) {
  const double seconds = report.median.seconds;
  nlohmann::ordered_json json;
  json["benchmark"] = "step";
  json["config"] = name;
  json["processor"] = processor_name();
  json["ranks"] = world.size();
  json["precision"] = config.run.precision;
  json["tokens_per_second"] = static_cast<double>(plan.tokens_per_step) / seconds;
  json["model_flops_per_second"] = plan.step_flops() / seconds;
  json["peak_flops_per_second"] = report.peak;
  json["peak_share"] = plan.step_flops() / seconds / report.peak;
  json["step_seconds"] = {{"median", seconds}, {"min", report.fastest}, {"max", report.slowest}};
  for (std::size_t part = 0; part < num_parts; ++part)
    json["parts"][std::string(name_of(static_cast<Part>(part)))] = report.median.parts[part];
  json["memory_bytes"] = report.memory_bytes;
  json["max_rows"] = report.max_rows;
  std::cout << json.dump(2) << std::endl;
}

}  // namespace

void run_step(Group& world, const Config& given, const std::string& name, const StepOptions& options) {
  set_threads(given.run, world);
  Config config = given;
  config.parallel = Mesh::resolved(config.parallel, world.size());
  if (config.model.vocab_size == 0) config.model.vocab_size = 257;
  const std::int64_t vocab_size = config.model.vocab_size;
  const Plan plan = make_plan(config, world.size(), vocab_size);
  require_memory(world, plan);
  RankState rank(world, config, vocab_size);
  RandomSource source(rank.trainer.batch_layout(), vocab_size, static_cast<std::uint64_t>(config.run.seed));

  Report report;
  report.peak = kernels::measure_product_peak(*rank.device, compute_dtype(config.run), 0.3);
  world.all_reduce_values({&report.peak, 1}, ReduceOp::sum);
  std::vector<Sample> samples;
  for (int step = 0; step < options.num_warmup + options.num_steps; ++step) {
    const Sample sample = time_step(rank.trainer, source, step + 1, world);
    if (step >= options.num_warmup) samples.push_back(sample);
  }
  std::sort(samples.begin(), samples.end(),
            [](const Sample& a, const Sample& b) { return a.seconds < b.seconds; });
  report.median = samples[samples.size() / 2];
  report.fastest = samples.front().seconds;
  report.slowest = samples.back().seconds;
  report.max_rows = static_cast<double>(rank.trainer.max_rows());
  report.memory_bytes = static_cast<double>(rank.trainer.peak_memory_bytes());
  if (world.rank() != 0) return;
  if (options.json) {
    print_json(world, config, name, plan, report);
  } else {
    print_text(world, config, name, plan, report, options);
  }
}

}  // namespace switchyard::bench
