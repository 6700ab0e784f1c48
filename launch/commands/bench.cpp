// switchyard bench: speed, beside the ceiling measured in the same run.
#include <fmt/format.h>

#include <array>
#include <iostream>

#include "launch/commands/bench_runs.hpp"
#include "launch/suggestion.hpp"
#include "launch/version.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/watch/temporary_watch.hpp"

namespace switchyard {

namespace {

std::string listed(std::span<const std::string_view> names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

// Options that one benchmark alone understands.
void refuse_machine_options(const std::string& name, const BenchRequest& request) {
  if (!request.machine.output.empty() || !request.machine.name.empty() || request.machine.quick)
    throw UsageError("bench", fmt::format("--output, --name and --quick are options of bench "
                                          "machine; bench {} has none",
                                          name));
}

void refuse_disturb(const std::string& name, const BenchRequest& request) {
  if (request.disturb)
    throw UsageError("bench",
                     fmt::format("--disturb is an option of bench step; bench {} has none", name));
}

void refuse_trace(const std::string& name, const BenchRequest& request) {
  if (!request.trace.empty())
    throw UsageError(
        "bench", fmt::format("--trace is an option of bench dispatch; bench {} has none", name));
}

// Options of bench ring or bench mixer, or of both, given to another.
void refuse_sequence_options(const std::string& name, const BenchRequest& request) {
  struct Given {
    const char* option;
    bool is_given, of_ring, of_mixer;
  };
  const Given all[] = {{"lengths", request.lengths.has_value(), true, true},
                       {"scheme", request.scheme.has_value(), true, false},
                       {"layout", request.layout.has_value(), true, false},
                       {"progress", request.progress.has_value(), true, false},
                       {"window", request.window.has_value(), true, false},
                       {"heads", request.heads.has_value(), true, true},
                       {"kv-heads", request.kv_heads.has_value(), true, false},
                       {"head-dim", request.head_dim.has_value(), true, true},
                       {"kinds", request.kinds.has_value(), false, true},
                       {"chunk", request.chunk.has_value(), false, true}};
  for (const Given& each : all) {
    if (!each.is_given || (each.of_ring && name == "ring") || (each.of_mixer && name == "mixer"))
      continue;
    throw UsageError("bench",
                     fmt::format("--{} is an option of bench {}{}; bench {} has none", each.option,
                                 each.of_ring ? "ring" : "mixer",
                                 each.of_ring && each.of_mixer ? " and bench mixer" : "", name));
  }
}

struct Benchmark {
  std::string_view name;
  void (*run)(const CommandContext& context, const BenchRequest& request,
              const bench::Output& output);
};
constexpr std::array<Benchmark, 9> benchmarks{{{"step", bench_step},
                                               {"linear", bench_linear},
                                               {"attention", bench_attention},
                                               {"experts", bench_experts},
                                               {"all_to_all", bench_all_to_all},
                                               {"dispatch", bench_dispatch},
                                               {"ring", bench_ring},
                                               {"mixer", bench_mixer},
                                               {"machine", bench_machine}}};

constexpr const char* description =
    "Measures speed on made-up data and prints it beside the ceiling measured in the same run.\n"
    "Under mpirun, all ranks work at once; a time is that of the slowest rank, a rate that of "
    "all.\n"
    "\n"
    "  step CONFIG [key.path=value ...]\n"
    "              whole training steps: tokens/s, share of the product peak, seconds by part\n"
    "  linear      products with a weight matrix, forward and both backwards, and its packing\n"
    "  attention   causal attention with grouped queries, forward and backward\n"
    "  experts     a bank of SwiGLU experts under balanced and skewed loads, forward and backward\n"
    "  all_to_all  the exchange between ranks, 4 KiB to 16 MiB a rank, with a check of what "
    "arrived\n"
    "  dispatch    tokens to the ranks of their experts and back, by every kind of dispatch\n"
    "  ring        attention of one sequence that the ranks share, beside what one rank attains\n"
    "  mixer       attention and recurrences over one sequence, forward and backward, and from how "
    "many\n"
    "              tokens on a recurrence is the quicker one\n"
    "  machine     all that the plan's seconds are made of, into a profile (docs/planning.md); in "
    "some\n"
    "              minutes, and once for each number of ranks on a host that is used\n"
    "\n"
    "docs/performance.md tells what the columns mean.";

const Benchmark& find_benchmark(const std::vector<std::string>& arguments) {
  std::vector<std::string_view> names;
  for (const Benchmark& each : benchmarks) names.push_back(each.name);
  if (arguments.empty())
    throw UsageError("bench",
                     fmt::format("the benchmark's name is missing; there are {}", listed(names)));
  for (const Benchmark& each : benchmarks)
    if (each.name == arguments.front()) return each;
  const auto near = nearest(arguments.front(), names);
  throw UsageError(
      "bench", fmt::format("unknown benchmark {}{}; there are {}", arguments.front(),
                           near ? fmt::format("; did you mean {}?", *near) : "", listed(names)));
}

}  // namespace

int run_bench(const CommandContext& context) {
  std::vector<std::string> arguments;
  BenchRequest request;
  bool json = false;
  std::int64_t num_warmup = request.repeats.num_warmup;
  std::int64_t num_steps = request.repeats.num_steps;
  double limit = 1800;  // one rank of bench ring may compute for long alone
  Options options("bench", "NAME [ARGUMENT ...]", description);
  options.add("json", json, "print JSON instead of a table; times in seconds, rates per second")
      .add("warmup", "N", num_warmup, "steps or repetitions before measuring (2)")
      .add("steps", "N", num_steps, "steps or repetitions measured (5)")
      .add("limit", "SECONDS", limit,
           "without progress of any rank, then the ranks that hang are named; 0: none (1800)")
      .add("precision", "TYPE", request.precision,
           "fp32 or bf16 alone, for linear, attention, experts, dispatch, ring and mixer")
      .add("sizes", "SIZE,...", request.sizes,
           "other sizes than the benchmark's own: ROWSxOUTxIN, "
           "SEQUENCESxLENGTHxHEADSxKV_HEADSxHEAD_DIM, EXPERTSxROWSxHIDDENxINTERMEDIATE, "
           "TOKENSxHIDDENxEXPERTSxTOP_K or BYTES")
      .add("disturb", request.disturb,
           "step: measure again while another program keeps one core busy")
      .add("lengths", "N,...", request.lengths, "ring, mixer: positions of the sequence")
      .add("scheme", "NAME", request.scheme,
           "ring: ring, all_gather, exact (a gather), ulysses, or RINGxULYSSES (ring)")
      .add("layout", "NAME", request.layout, "ring: zigzag or contiguous (zigzag)")
      .add("progress", "NAME", request.progress,
           "ring: what moves messages meanwhile: poll, thread or none (poll)")
      .add("window", "N", request.window, "ring: positions that a query sees; 0: all (0)")
      .add("heads", "N", request.heads, "ring: query heads (8); mixer: heads (4)")
      .add("kv-heads", "N", request.kv_heads, "ring: kv heads (2)")
      .add("head-dim", "N", request.head_dim, "ring, mixer: elements of a head (64)")
      .add("kinds", "NAME,...", request.kinds,
           "mixer: those to measure (full,linear,retention,ssd,delta,gated_delta)")
      .add("chunk", "N", request.chunk, "mixer: tokens that a recurrence computes together (64)")
      .add_path("trace", "PATH", request.trace,
                "dispatch: also the choices of a run's trace of routing (docs/traces.md): the run, "
                "its routing/ or a trace.h5; of its last step, the layer with the fullest expert")
      .add_path("output", "FILE", request.machine.output,
                "machine: the profile (~/.config/switchyard/profile.yaml, where plan.profile: auto "
                "looks); settings of other numbers of ranks in it stay")
      .add("name", "TEXT", request.machine.name, "machine: of the profile (the processor's)")
      .add("quick", request.machine.quick, "machine: coarse grids, for a try in seconds")
      .arguments("NAME", arguments);
  if (!options.parse(context.arguments)) return 0;
  constexpr std::int64_t most = 1'000'000;
  if (num_warmup < 0 || num_warmup > most || num_steps < 1 || num_steps > most)
    throw UsageError("bench", fmt::format("--steps must be 1 to {0}, --warmup 0 to {0}", most));
  require_limit("bench", limit);
  request.repeats = {static_cast<int>(num_warmup), static_cast<int>(num_steps)};
  const Benchmark& benchmark = find_benchmark(arguments);
  request.arguments.assign(arguments.begin() + 1, arguments.end());
  refuse_sequence_options(std::string(benchmark.name), request);
  if (benchmark.name != "machine") refuse_machine_options(std::string(benchmark.name), request);
  if (benchmark.name != "dispatch") refuse_trace(std::string(benchmark.name), request);
  if (benchmark.name != "step") refuse_disturb(std::string(benchmark.name), request);
  Group& world = context.session->world();
  set_threads(RunConfig{}, world);
  const bench::Output output{.stream = std::cout,
                             .json = json,
                             .versions = {.program = version::program,
                                          .compiler = version::compiler,
                                          .onednn = version::onednn,
                                          .mpi = version::mpi_library}};
  TemporaryWatch watch(world, context.session->log(), same_limit(limit),
                       place_for_watch(world.topology()), "bench");
  watch.run(world, [&] { benchmark.run(context, request, output); });
  return 0;
}

}  // namespace switchyard
