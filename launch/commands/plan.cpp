// switchyard plan: parameters, memory, work and bytes on the wire of a layout, from the trainer's
// own code on the plan device.
#include <fmt/core.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "experts/dispatch/dispatch_mistakes.hpp"
#include "experts/router/router_mistakes.hpp"
#include "kernels/threads.hpp"
#include "launch/commands/commands.hpp"
#include "launch/commands/context_table.hpp"
#include "launch/commands/dispatch_table.hpp"
#include "launch/commands/plan_machine.hpp"
#include "launch/commands/plan_remedies.hpp"
#include "launch/commands/plan_search.hpp"
#include "launch/commands/run_data.hpp"
#include "launch/commands/table_text.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "launch/pricing/predicted_trace.hpp"
#include "trainer/batch_layout.hpp"
#include "trainer/number_text.hpp"
#include "trainer/plan.hpp"
#include "trainer/run/run_setup.hpp"

namespace switchyard {

namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string in_parentheses(std::int64_t bytes) {
  return fmt::format("({})", format_bytes(static_cast<double>(bytes)));
}

std::string memory_text(const Plan& plan) {
  const RankPlan& fullest = plan.fullest();
  Rows rows;
  const auto add = [&rows](std::string_view name, std::int64_t bytes) {
    rows.push_back({std::string(name), std::to_string(bytes), in_parentheses(bytes)});
  };
  for (int purpose = 0; purpose < num_purposes; ++purpose)
    add(name_of(static_cast<Purpose>(purpose)), fullest.bytes[static_cast<std::size_t>(purpose)]);
  add("peak", fullest.peak_bytes);
  std::string out = fmt::format("Memory of the fullest rank (rank {}), bytes:\n{}", fullest.rank,
                                table_text(rows));
  out +=
      fmt::format("Address space that a rank reserves, for any routing (ulimit -v counts it): {}\n",
                  format_bytes(static_cast<double>(plan.most_reserved_bytes())));
  if (fullest.spilled_bytes > 0)
    out += fmt::format("Spilled and read back by it in a step: {}\n",
                       format_bytes(fullest.spilled_bytes));
  return out;
}

std::string work_text(const Plan& plan) {
  const Unit flops = flop_unit(plan.step_flops());
  const Unit bytes = byte_unit(plan.step_wire_bytes());
  Rows rows = {{"part", std::string(flops.name), fmt::format("wire {}", bytes.name)}};
  const auto add = [&](std::string_view name, double num_flops, double num_bytes) {
    rows.push_back({std::string(name), fmt::format("{:.3f}", num_flops / flops.size),
                    fmt::format("{:.3f}", num_bytes / bytes.size)});
  };
  const double scale = plan.num_ranks / static_cast<double>(plan.ranks.size());
  for (std::size_t part = 0; part < num_parts; ++part) {
    Work sum;
    for (const RankPlan& rank : plan.ranks) {
      sum.flops += rank.step[part].flops;
      sum.wire_bytes += rank.step[part].wire_bytes;
    }
    if (sum.flops == 0 && sum.wire_bytes == 0) continue;
    add(name_of(static_cast<Part>(part)), sum.flops * scale, sum.wire_bytes * scale);
  }
  add("step", plan.step_flops(), plan.step_wire_bytes());
  return fmt::format("Work of one step, all ranks, {} tokens in {} micro-steps:\n{}",
                     plan.tokens_per_step, plan.num_micro_steps, table_text(rows));
}

// What the small numbers of a part are for.
std::string_view control_of(Part part) {
  switch (part) {
    case Part::dispatch:
      return "rows for each expert";
    case Part::router:
      return "balance";
    case Part::reduction:
      return "load of the experts";
    case Part::optimizer:
      return "losses, norm, stop, memory";
    default:
      return name_of(part);
  }
}

// The small numbers that ranks tell each other, as a mean of the ranks.
std::string control_text(const Plan& plan) {
  Rows rows = {{"purpose", "messages", "bytes"}};
  Work total;
  const auto add = [&](std::string_view name, const Work& work) {
    const auto num_kinds = static_cast<double>(plan.ranks.size());
    rows.push_back({std::string(name), fmt::format("{:.0f}", work.control_messages / num_kinds),
                    fmt::format("{:.0f}", work.control_bytes / num_kinds)});
  };
  for (std::size_t part = 0; part < num_parts; ++part) {
    Work sum;
    for (const RankPlan& rank : plan.ranks) sum += rank.step[part];
    if (sum.control_messages > 0) add(control_of(static_cast<Part>(part)), sum);
    total += sum;
  }
  if (total.control_messages == 0) return {};
  add("step", total);
  return fmt::format("Control of one step, sent by a rank:\n{}\n", table_text(rows));
}

// How memory grows as routing gets less even.
std::string imbalance_text(const Config& config, const Plan& balanced, std::int64_t vocab_size) {
  const std::int64_t num_rows = balanced.fullest().max_rows;
  if (num_rows == 0) return {};
  const std::int64_t worst = worst_case_rows(config, balanced.num_ranks);
  Rows rows;
  const auto add = [&](std::int64_t uneven, std::string what) {
    const std::int64_t bytes = peak_bytes_with_rows(config, balanced, vocab_size, uneven);
    rows.push_back({fmt::format("{:>{}} rows", uneven, std::to_string(worst).size()),
                    std::move(what), std::to_string(bytes), in_parentheses(bytes)});
  };
  for (const double factor : {1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0}) {
    const auto uneven = static_cast<std::int64_t>(static_cast<double>(num_rows) * factor);
    if (uneven >= worst) break;
    add(uneven, fmt::format("({:.2f} x balanced)", factor));
  }
  add(worst, "(the most possible)");
  return "If routing is uneven (rows received by the fullest rank in a layer -> its peak):\n" +
         table_text(rows);
}

// Whether the plan fits, and with experts, up to which rows. planned_rows 0: none were given.
std::string fit_text(const Config& config, const Plan& plan, std::int64_t vocab_size,
                     const RankMemory& memory, std::int64_t planned_rows) {
  if (memory.bytes == 0) return {};
  const std::int64_t balanced_rows = plan.fullest().max_rows;
  const std::string of_rank = format_bytes(static_cast<double>(memory.bytes));
  const std::string why = fmt::format("  ({})\n", memory.reason);
  if (planned_rows > 0 || balanced_rows == 0)
    return fmt::format(
        "{} {} a rank\n{}",
        plan.fullest().peak_bytes <= memory.bytes ? "Fits into" : "Does not fit into", of_rank,
        why);
  const std::int64_t most = most_rows_within(config, plan, vocab_size, memory.bytes);
  if (most == 0) return fmt::format("Does not fit into {} a rank, even balanced\n{}", of_rank, why);
  return fmt::format("{} a rank hold up to {} rows ({:.2f} x balanced)\n{}", of_rank, most,
                     static_cast<double>(most) / static_cast<double>(balanced_rows), why);
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
  const double num_layers = static_cast<double>(problem.patterns.size());
  for (const SchemeCost& cost : all_scheme_costs(problem, chosen))
    schemes.push_back({{"ring", cost.ring},
                       {"ulysses", cost.ulysses},
                       {"method", name_of(cost.method)},
                       {"chosen", is_chosen(cost, chosen)},
                       {"memory_bytes", cost.memory_bytes},
                       {"forward", json_of(cost.forward, num_layers)},
                       {"backward", json_of(cost.backward, num_layers)}});
  return schemes;
}

void print_json(const Plan& plan, std::string_view target, const ContextProblem& problem,
                const RankMemory& memory, const std::optional<PlannedSeconds>& seconds) {
  nlohmann::ordered_json json;
  json["num_ranks"] = plan.num_ranks;
  json["target"] = target;
  json["num_threads"] = kernels::num_threads();
  json["parallel"] = {{"data", plan.parallel.data},
                      {"context", plan.parallel.context},
                      {"expert", plan.parallel.expert}};
  if (plan.parallel.context > 1) json["context_schemes"] = json_of_schemes(problem, plan.parallel);
  json["num_parameters"] = plan.num_parameters;
  json["num_active_parameters"] = plan.num_active_parameters;
  json["num_state_elements"] = plan.num_state_elements;
  json["tokens_per_step"] = plan.tokens_per_step;
  json["num_micro_steps"] = plan.num_micro_steps;
  json["step_flops"] = plan.step_flops();
  json["step_wire_bytes"] = plan.step_wire_bytes();
  json["memory_bytes"] = plan.fullest().peak_bytes;
  if (memory.bytes > 0)
    json["memory_of_rank"] = {{"bytes", memory.bytes},
                              {"reason", memory.reason},
                              {"fits", plan.fullest().peak_bytes <= memory.bytes}};
  if (seconds) json["seconds"] = nlohmann::ordered_json::parse(seconds_json(plan, *seconds));
  for (const RankPlan& rank : plan.ranks) {
    nlohmann::ordered_json entry;
    entry["rank"] = rank.rank;
    entry["memory_bytes"] = rank.peak_bytes;
    entry["reserved_bytes"] = rank.reserved_bytes;
    entry["max_rows"] = rank.max_rows;
    entry["spilled_bytes"] = rank.spilled_bytes;
    for (int purpose = 0; purpose < num_purposes; ++purpose)
      entry["bytes"][std::string(name_of(static_cast<Purpose>(purpose)))] =
          rank.bytes[static_cast<std::size_t>(purpose)];
    for (std::size_t part = 0; part < num_parts; ++part)
      entry["step"][std::string(name_of(static_cast<Part>(part)))] = {
          {"flops", rank.step[part].flops},
          {"bytes", rank.step[part].bytes},
          {"wire_bytes", rank.step[part].wire_bytes},
          {"control_bytes", rank.step[part].control_bytes},
          {"control_messages", rank.step[part].control_messages}};
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
  std::string target;
  MemoryOptions memory_options;
  SecondsOptions seconds_options;
  std::string trace;
  bool search = false;
  std::int64_t most_shown = 10;
  bool json = false;
  std::vector<std::string> arguments;
  Options options("plan", "CONFIG [key.path=value ...]",
                  "Prints what a layout needs, from the trainer's own code on a device without "
                  "memory: parameters, memory by purpose, work and bytes on the wire; and, with a "
                  "machine's profile (`switchyard bench machine`, configs/clusters), the seconds.");
  options.add("ranks", "N", num_ranks, "ranks of the job (default 1)")
      .add("rows", "N", rows,
           "rows received by the fullest rank in a layer (a run's max_rows); "
           "default: balanced routing")
      .add("threads", "N", num_threads, "threads of a rank (default: as `train` would take here)")
      .add("target", "DEVICE", target,
           "cpu or cuda: what the ranks compute on (default: run.device; auto: cpu)")
      .add("node-memory", "BYTES", memory_options.of_node,
           "memory of a node: 512GiB, 1.5TB, 64G or bytes (default: what is available here)")
      .add("ranks-per-node", "N", memory_options.ranks_per_node,
           "ranks that share a node's memory (default: one for each core here)")
      .add("memory", "GIB", memory_options.gib_of_rank,
           "memory a rank may use, instead of those two")
      .add_path("cluster", "FILE", seconds_options.cluster,
                "profile of the machine that the seconds are of (default: plan.profile)")
      .add("imbalance", "LOAD", seconds_options.imbalance,
           "balanced, rows of the fullest rank over the mean (1.4), a run's folder (its "
           "metrics.jsonl) or a trace of routing, whose load is taken on to this layout (default: "
           "balanced)")
      .add("tokens", "N", seconds_options.num_tokens,
           "of a run, whose hours and energy are then told, too: 1e12")
      .add("extrapolate", seconds_options.extrapolate,
           "price also what is far outside the measured sizes and settings")
      .add_path("trace", "FILE", trace,
                "write the time line of the foretold step, for Perfetto; needs a profile")
      .add("search", search,
           "rank all legal layouts, micro-batches and activation policies that fit into memory by "
           "their seconds; needs a profile")
      .add("top", "N", most_shown, "layouts that --search shows (10)")
      .add("json", json, "print JSON, with every kind of rank")
      .arguments("CONFIG", arguments, 1);
  if (!options.parse(context.arguments)) return 0;
  if (num_ranks < 1 || num_ranks > 1'000'000)
    throw UsageError("plan", "--ranks must be from 1 to 1000000");
  if (num_threads < 0 || num_threads > 4096)
    throw UsageError("plan", "--threads must be from 1 to 4096");
  if (!target.empty() && target != "cpu" && target != "cuda")
    throw UsageError("plan", "--target must be cpu or cuda");
  require_right(memory_options);
  if (rows < 0) throw UsageError("plan", "--rows must be at least 0");
  if (most_shown < 1) throw UsageError("plan", "--top must be at least 1");
  if (!(seconds_options.num_tokens >= 0)) throw UsageError("plan", "--tokens must be at least 0");

  const LoadedConfig loaded = read_config(arguments.front(), std::span(arguments).subspan(1));
  require_valid_for_ranks(loaded, num_ranks);
  print_warnings(loaded);
  Config config = loaded.config;
  if (!target.empty()) config.run.device = target == "cuda" ? RunDevice::cuda : RunDevice::cpu;
  if (num_threads > 0) config.run.threads = num_threads;
  set_planned_threads(config.run, static_cast<int>(num_ranks));
  const PlanMachine machine =
      machine_of(seconds_options, memory_options, static_cast<int>(num_ranks), num_threads > 0,
                 !target.empty(), config);
  set_planned_threads(config.run, static_cast<int>(num_ranks));
  if (config.run.device == RunDevice::cuda) {
    require_none(router_mistakes_on_card(config.experts));
    require_none(dispatch_mistakes_on_card(config.experts));
  }
  const std::int64_t vocab_size = vocabulary_of(loaded);
  config.model.vocab_size = vocab_size;
  if ((search || !trace.empty()) && machine.setting == nullptr)
    throw ConfigError(fmt::format("{} is of seconds, and there are none: {}",
                                  search ? "--search" : "--trace", machine.found.why_not));
  if (search) {
    LoadedConfig searched = loaded;
    searched.config = config;
    const SearchResult result = search_layouts(
        {.loaded = searched,
         .num_ranks = static_cast<int>(num_ranks),
         .vocab_size = vocab_size,
         .memory_bytes = memory_of_rank(memory_options, static_cast<int>(num_ranks), machine).bytes,
         .profile = *machine.found.profile,
         .setting = *machine.setting,
         .extrapolate = seconds_options.extrapolate,
         .rows_of = [&](const Config& layout) {
           return read_imbalance(seconds_options.imbalance, layout).rows;
         }});
    std::cout << (json ? search_json(result, most_shown) + "\n" : search_text(result, most_shown))
              << std::flush;
    return 0;
  }
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
  const Plan plan = make_plan(config, static_cast<int>(num_ranks), vocab_size, rows,
                              machine.setting == nullptr ? StepRecords::none
                              : trace.empty()            ? StepRecords::alike_once
                                                         : StepRecords::full);
  config.parallel = plan.parallel;  // chosen once
  const ContextProblem problem = context_problem(config, plan.parallel);
  const RankMemory memory = memory_of_rank(memory_options, plan.num_ranks, machine);
  const std::optional<PlannedSeconds> seconds = seconds_of(plan, config, machine, seconds_options);
  if (!trace.empty()) {
    constexpr std::size_t most_ranks = 16;
    write_file_atomically(trace, predicted_trace(plan, *machine.found.profile, *machine.setting,
                                                 {.rows = seconds->imbalance.rows}, most_ranks));
  }
  if (json) {
    print_json(plan, config.run.device == RunDevice::cuda ? "cuda" : "cpu", problem, memory,
               seconds);
    return 0;
  }
  std::cout << fmt::format(
      "{}: {} parameters ({}), {} active a token ({})\n{} ranks = data {} x context {}; expert "
      "{}; {}\n\n",
      loaded.path, plan.num_parameters, format_count(static_cast<double>(plan.num_parameters)),
      plan.num_active_parameters, format_count(static_cast<double>(plan.num_active_parameters)),
      plan.num_ranks, plan.parallel.data, plan.parallel.context, plan.parallel.expert,
      config.run.device == RunDevice::cuda
          ? std::string("a card (cuda) a rank")
          : fmt::format("{} threads a rank", kernels::num_threads()));
  std::cout << memory_text(plan) << '\n' << work_text(plan) << '\n' << control_text(plan);
  if (plan.parallel.context > 1) std::cout << context_table(problem, plan.parallel) << '\n';
  if (const std::string table =
          dispatch_table(config, ranks_of_node(memory_options, plan.num_ranks));
      !table.empty())
    std::cout << table << '\n';
  if (rows == 0) std::cout << imbalance_text(config, plan, vocab_size) << '\n';
  std::cout << fit_text(config, plan, vocab_size, memory, rows);
  if (memory.bytes > 0 && plan.fullest().peak_bytes > memory.bytes) {
    LoadedConfig changed = loaded;
    changed.config = config;
    changed.config.parallel = loaded.config.parallel;
    std::cout << remedies_text(changed, plan.num_ranks, vocab_size, memory.bytes);
  }
  std::cout << '\n';
  std::cout << (seconds ? seconds_text(plan, *seconds)
                        : fmt::format("No seconds: {}\n", machine.found.why_not))
            << std::flush;
  return 0;
}

}  // namespace switchyard
