// switchyard plan: parameters, memory, work and bytes on the wire of a layout, from the trainer's
// own code on the plan device.
#include <fmt/core.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "kernels/threads.hpp"
#include "launch/commands/commands.hpp"
#include "launch/commands/context_table.hpp"
#include "launch/commands/run_data.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "trainer/batch_layout.hpp"
#include "trainer/number_text.hpp"
#include "trainer/plan.hpp"
#include "trainer/run/run_setup.hpp"

namespace switchyard {

namespace {

std::string bytes_text(std::int64_t bytes) {
  return fmt::format("{:>14} ({})", bytes, format_bytes(static_cast<double>(bytes)));
}

std::string memory_text(const Plan& plan) {
  const RankPlan& fullest = plan.fullest();
  std::string out = fmt::format("Memory of the fullest rank (rank {}), bytes:\n", fullest.rank);
  for (int purpose = 0; purpose < num_purposes; ++purpose)
    out += fmt::format("  {:<14}{}\n", name_of(static_cast<Purpose>(purpose)),
                       bytes_text(fullest.bytes[static_cast<std::size_t>(purpose)]));
  out += fmt::format("  {:<14}{}\n", "peak", bytes_text(fullest.peak_bytes));
  if (fullest.spilled_bytes > 0)
    out += fmt::format("Spilled and read back by it in a step: {}\n",
                       format_bytes(fullest.spilled_bytes));
  return out;
}

std::string work_text(const Plan& plan) {
  std::string out = fmt::format(
      "Work of one step, all ranks, {} tokens in {} micro-steps:\n  {:<12}{:>14}{:>14}\n",
      plan.tokens_per_step, plan.num_micro_steps, "part", "GFLOP", "wire MB");
  const double scale = plan.num_ranks / static_cast<double>(plan.ranks.size());
  for (std::size_t part = 0; part < num_parts; ++part) {
    Work sum;
    for (const RankPlan& rank : plan.ranks) {
      sum.flops += rank.step[part].flops;
      sum.wire_bytes += rank.step[part].wire_bytes;
    }
    if (sum.flops == 0 && sum.wire_bytes == 0) continue;
    out += fmt::format("  {:<12}{:>14.3f}{:>14.3f}\n", name_of(static_cast<Part>(part)),
                       sum.flops * scale / 1e9, sum.wire_bytes * scale / 1e6);
  }
  return out + fmt::format("  {:<12}{:>14.3f}{:>14.3f}\n", "step", plan.step_flops() / 1e9,
                           plan.step_wire_bytes() / 1e6);
}

// How memory grows as routing gets less even, up to what this host could give each rank.
std::string imbalance_text(const Config& config, const Plan& balanced, std::int64_t vocab_size,
                           std::int64_t bytes_per_rank) {
  const std::int64_t rows = balanced.fullest().max_rows;
  if (rows == 0) return {};
  const std::int64_t worst = worst_case_rows(config, balanced.num_ranks);
  std::string out =
      "If routing is uneven (rows received by the fullest rank in a layer -> its peak):\n";
  for (const double factor : {1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0}) {
    const std::int64_t uneven = static_cast<std::int64_t>(static_cast<double>(rows) * factor);
    if (uneven >= worst) break;
    const Plan plan = make_plan(config, balanced.num_ranks, vocab_size, uneven);
    out += fmt::format("  {:>10} rows ({:.2f} x balanced){}\n", uneven, factor,
                       bytes_text(plan.fullest().peak_bytes));
  }
  const Plan plan = make_plan(config, balanced.num_ranks, vocab_size, worst);
  out += fmt::format("  {:>10} rows (the most possible){}\n", worst,
                     bytes_text(plan.fullest().peak_bytes));
  const std::int64_t most =
      most_rows_within(config, balanced.num_ranks, vocab_size, bytes_per_rank);
  out += most == 0 ? fmt::format("  does not fit into {} a rank, even balanced\n",
                                 format_bytes(static_cast<double>(bytes_per_rank)))
                   : fmt::format("  {} a rank hold up to {} rows ({:.2f} x balanced)\n",
                                 format_bytes(static_cast<double>(bytes_per_rank)), most,
                                 static_cast<double>(most) / static_cast<double>(rows));
  return out;
}

nlohmann::ordered_json json_of(const PassCost& cost, double num_layers) {
  return {{"wire_bytes", cost.wire_bytes / num_layers},
          {"compute_seconds", cost.compute_seconds / num_layers},
          {"wire_seconds", cost.wire_seconds / num_layers},
          {"seconds", cost.seconds / num_layers},
          {"hidden", cost.is_hidden},
          {"hidden_share", cost.hidden_share()}};
}

// Means of a layer, for one micro-batch, as in the table.
nlohmann::ordered_json json_of_schemes(const ContextProblem& problem,
                                       const ParallelConfig& chosen) {
  nlohmann::ordered_json schemes = nlohmann::ordered_json::array();
  const double num_layers = static_cast<double>(problem.windows.size());
  for (const SchemeCost& cost : all_scheme_costs(problem, chosen))
    schemes.push_back({{"ring", cost.ring},
                       {"ulysses", cost.ulysses},
                       {"method", cost.method},
                       {"chosen", is_chosen(cost, chosen)},
                       {"forward", json_of(cost.forward, num_layers)},
                       {"backward", json_of(cost.backward, num_layers)}});
  return schemes;
}

void print_json(const Plan& plan, const ContextProblem& problem) {
  nlohmann::ordered_json json;
  json["num_ranks"] = plan.num_ranks;
  json["num_threads"] = kernels::num_threads();
  json["parallel"] = {{"data", plan.parallel.data},
                      {"context", plan.parallel.context},
                      {"expert", plan.parallel.expert}};
  if (plan.parallel.context > 1) json["context_schemes"] = json_of_schemes(problem, plan.parallel);
  json["num_parameters"] = plan.num_parameters;
  json["num_active_parameters"] = plan.num_active_parameters;
  json["tokens_per_step"] = plan.tokens_per_step;
  json["num_micro_steps"] = plan.num_micro_steps;
  json["step_flops"] = plan.step_flops();
  json["step_wire_bytes"] = plan.step_wire_bytes();
  json["memory_bytes"] = plan.fullest().peak_bytes;
  for (const RankPlan& rank : plan.ranks) {
    nlohmann::ordered_json entry;
    entry["rank"] = rank.rank;
    entry["memory_bytes"] = rank.peak_bytes;
    entry["max_rows"] = rank.max_rows;
    entry["spilled_bytes"] = rank.spilled_bytes;
    for (int purpose = 0; purpose < num_purposes; ++purpose)
      entry["bytes"][std::string(name_of(static_cast<Purpose>(purpose)))] =
          rank.bytes[static_cast<std::size_t>(purpose)];
    for (std::size_t part = 0; part < num_parts; ++part)
      entry["step"][std::string(name_of(static_cast<Part>(part)))] = {
          {"flops", rank.step[part].flops},
          {"bytes", rank.step[part].bytes},
          {"wire_bytes", rank.step[part].wire_bytes}};
    json["ranks"].push_back(std::move(entry));
  }
  std::cout << json.dump(2) << std::endl;
}

// The tokenizer's vocabulary if the configuration leaves the size to it.
std::int64_t vocabulary_of(const LoadedConfig& loaded) {
  const std::int64_t configured = loaded.config.model.vocab_size;
  return configured > 0 ? configured : vocab_size_of_data(loaded);
}

}  // namespace

int run_plan(const CommandContext& context) {
  std::int64_t num_ranks = 1;
  std::int64_t rows = 0;
  std::int64_t num_threads = 0;
  double gib_per_rank = 0;
  bool json = false;
  std::vector<std::string> arguments;
  Options options("plan", "CONFIG [key.path=value ...]",
                  "Prints what a layout needs, from the trainer's own code on a device without "
                  "memory: parameters, memory by purpose, work and bytes on the wire.");
  options.add("ranks", "N", num_ranks, "ranks of the job (default 1)")
      .add("rows", "N", rows,
           "rows received by the fullest rank in a layer (a run's max_rows); "
           "default: balanced routing")
      .add("threads", "N", num_threads, "threads of a rank (default: as `train` would take here)")
      .add("memory", "GIB", gib_per_rank,
           "memory a rank may use (default: what this host has available / ranks)")
      .add("json", json, "print JSON, with every kind of rank")
      .arguments("CONFIG", arguments, 1);
  if (!options.parse(context.arguments)) return 0;
  if (num_ranks < 1 || num_ranks > 1'000'000)
    throw UsageError("plan", "--ranks must be from 1 to 1000000");
  if (num_threads < 0) throw UsageError("plan", "--threads must be at least 1");
  if (!(gib_per_rank >= 0)) throw UsageError("plan", "--memory must be at least 0");
  if (rows < 0) throw UsageError("plan", "--rows must be at least 0");

  const LoadedConfig loaded = read_config(arguments.front(), std::span(arguments).subspan(1));
  require_valid_for_ranks(loaded, num_ranks);
  print_warnings(loaded);
  Config config = loaded.config;
  if (num_threads > 0) config.run.threads = num_threads;
  set_threads(config.run, static_cast<int>(num_ranks));
  const std::int64_t vocab_size = vocabulary_of(loaded);
  config.model.vocab_size = vocab_size;
  if (rows > 0) {
    const std::int64_t most = worst_case_rows(config, static_cast<int>(num_ranks));
    if (rows > most)
      throw UsageError(
          "plan",
          fmt::format("--rows {} is more than routing can send to one rank: {}", rows, most));
    const std::int64_t least = least_rows(config, static_cast<int>(num_ranks));
    if (rows < least)
      throw UsageError("plan",
                       fmt::format("--rows {} is less than the fullest rank receives of any "
                                   "routing: {}",
                                   rows, least));
  }
  const Plan plan = make_plan(config, static_cast<int>(num_ranks), vocab_size, rows);
  const ContextProblem problem = context_problem(config, plan.parallel);
  if (json) {
    print_json(plan, problem);
    return 0;
  }
  std::cout << fmt::format(
      "{}: {} parameters ({}), {} active a token ({})\n{} ranks = data {} x context {}; expert "
      "{}\n\n",
      loaded.path, plan.num_parameters, format_count(static_cast<double>(plan.num_parameters)),
      plan.num_active_parameters, format_count(static_cast<double>(plan.num_active_parameters)),
      plan.num_ranks, plan.parallel.data, plan.parallel.context, plan.parallel.expert,
      kernels::num_threads());
  std::cout << memory_text(plan) << '\n' << work_text(plan) << '\n';
  if (plan.parallel.context > 1) std::cout << context_table(problem, plan.parallel) << '\n';
  if (rows == 0) {
    const std::int64_t per_rank = gib_per_rank > 0
                                      ? static_cast<std::int64_t>(gib_per_rank * (1 << 30))
                                      : available_memory_bytes() / num_ranks;
    std::cout << imbalance_text(config, plan, vocab_size, per_rank);
  }
  std::cout << std::flush;
  return 0;
}

}  // namespace switchyard
