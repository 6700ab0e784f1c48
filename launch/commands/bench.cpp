// switchyard bench: speed, beside the ceiling measured in the same run.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <iostream>
#include <optional>
#include <tuple>
#include <utility>

#include "bench/all_to_all.hpp"
#include "bench/attention.hpp"
#include "bench/dispatch.hpp"
#include "bench/experts.hpp"
#include "bench/linear.hpp"
#include "bench/mixer.hpp"
#include "bench/ring.hpp"
#include "bench/step.hpp"
#include "launch/commands/bench_machine.hpp"
#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "launch/suggestion.hpp"
#include "launch/version.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/watch/temporary_watch.hpp"

namespace switchyard {

namespace {

// What the command line says, whatever the benchmark.
struct Request {
  std::vector<std::string> arguments;  // behind the benchmark's name
  std::optional<Precision> precision;  // none: both
  std::string sizes;                   // empty: the benchmark's own
  bench::Repeats repeats;
  bool disturb = false;         // of bench step alone
  BenchMachineOptions machine;  // of bench machine alone
  // Of bench ring, and some of bench mixer; not given: the benchmark's own.
  std::optional<std::string> lengths, scheme;
  std::optional<SequenceLayout> layout;
  std::optional<Progress> progress;
  std::optional<std::int64_t> window, heads, kv_heads, head_dim;
  std::string trace;  // of bench dispatch alone
  // Of bench mixer alone.
  std::optional<std::string> kinds;
  std::optional<std::int64_t> chunk;
};

std::string listed(std::span<const std::string_view> names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

void refuse_arguments(const std::string& name, const Request& request) {
  if (!request.arguments.empty())
    throw UsageError("bench",
                     fmt::format("bench {} takes no argument {}", name, request.arguments.front()));
}

std::vector<DType> precisions_of(const Request& request) {
  if (!request.precision) return {DType::f32, DType::bf16};
  return {*request.precision == Precision::fp32 ? DType::f32 : DType::bf16};
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts{""};
  for (const char letter : text) {
    if (letter == separator)
      parts.emplace_back();
    else
      parts.back() += letter;
  }
  return parts;
}

// A whole number from 1 to `most`; 0: the text is none.
std::int64_t positive_number(const std::string& text, std::int64_t most) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end && value >= 1 && value <= most ? value : 0;
}

// Puts "256x2048x512,1024x512x1024", if it is given, in the place of a benchmark's own sizes: each
// of N positive numbers, the members of a Size in their order; `form` names them: "ROWSxOUTxIN".
template <std::size_t N, class Size>
void replace_sizes(std::vector<Size>& sizes, const Request& request, std::string_view form) {
  if (request.sizes.empty()) return;
  sizes.clear();
  constexpr std::int64_t most = std::int64_t{1} << 30;
  for (const std::string& size : split(request.sizes, ',')) {
    const std::vector<std::string> numbers = split(size, 'x');
    bool is_right = numbers.size() == N;
    std::array<std::int64_t, N> values{};
    for (std::size_t i = 0; is_right && i < N; ++i) {
      values[i] = positive_number(numbers[i], most);
      is_right = values[i] > 0;
    }
    if (!is_right)
      throw UsageError("bench", fmt::format("--sizes {}: expected {}, of numbers from 1 to {}, and "
                                            "commas between several",
                                            size.empty() ? "''" : size, form, most));
    sizes.push_back(std::apply([](auto... each) { return Size{each...}; }, values));
  }
}

// Of a benchmark that takes precisions and sizes.
template <class BenchmarkOptions, std::size_t N>
BenchmarkOptions options_of(const std::string& name, const Request& request,
                            std::string_view form) {
  refuse_arguments(name, request);
  BenchmarkOptions options;
  options.precisions = precisions_of(request);
  replace_sizes<N>(options.sizes, request, form);
  return options;
}

void bench_step(const CommandContext& context, const Request& request,
                const bench::Output& output) {
  if (request.arguments.empty()) throw UsageError("bench", "bench step needs a CONFIG");
  if (request.precision)
    throw UsageError("bench", fmt::format("the precision of bench step is the configuration's: "
                                          "write run.precision={} behind it",
                                          name_of(*request.precision)));
  if (!request.sizes.empty()) throw UsageError("bench", "bench step takes no --sizes");
  Group& world = context.session->world();
  const LoadedConfig loaded = load_config_collectively(world, request.arguments[0],
                                                       std::span(request.arguments).subspan(1));
  require_valid_for_ranks(loaded, world.size());
  if (world.rank() == 0) print_warnings(loaded);
  bench::run_step(world, context.session->log(), loaded.config, request.arguments[0],
                  request.repeats, request.disturb, output);
}

void bench_linear(const CommandContext& context, const Request& request,
                  const bench::Output& output) {
  const auto options = options_of<bench::LinearOptions, 3>("linear", request, "ROWSxOUTxIN");
  bench::run_linear(context.session->world(), options, request.repeats, output);
}

void bench_attention(const CommandContext& context, const Request& request,
                     const bench::Output& output) {
  const auto options = options_of<bench::AttentionOptions, 5>(
      "attention", request, "SEQUENCESxLENGTHxHEADSxKV_HEADSxHEAD_DIM");
  for (const bench::AttentionSize& size : options.sizes)
    if (size.num_heads % size.num_kv_heads != 0)
      throw UsageError("bench", fmt::format("--sizes: heads must be a multiple of kv heads, and {} "
                                            "is not one of {}",
                                            size.num_heads, size.num_kv_heads));
  bench::run_attention(context.session->world(), options, request.repeats, output);
}

void bench_experts(const CommandContext& context, const Request& request,
                   const bench::Output& output) {
  const auto options =
      options_of<bench::ExpertsOptions, 4>("experts", request, "EXPERTSxROWSxHIDDENxINTERMEDIATE");
  bench::run_experts(context.session->world(), options, request.repeats, output);
}

void require_ranks(const CommandContext& context, const std::string& name) {
  if (context.session->world().size() < 2)
    throw UsageError("bench",
                     fmt::format("bench {0} measures an exchange between ranks and needs two at "
                                 "least: mpirun -n 2 switchyard bench {0}",
                                 name));
}

// The trace's experts and choices go with the default's tokens, or with sizes that agree with them.
void take_trace(bench::DispatchOptions& options, const Request& request, Group& world) {
  options.traced = bench::read_choices(world, request.trace);
  const std::int64_t num_experts = options.traced->num_experts, top_k = options.traced->top_k;
  if (request.sizes.empty()) {
    options.sizes.resize(1);
    options.sizes.front().num_experts = num_experts;
    options.sizes.front().top_k = top_k;
  }
  for (const bench::DispatchSize& size : options.sizes)
    if (size.num_experts != num_experts || size.top_k != top_k)
      throw UsageError("bench", fmt::format("--sizes: {} was traced with {} experts, top {}; end "
                                            "sizes with x{}x{}",
                                            request.trace, num_experts, top_k, num_experts, top_k));
}

void bench_dispatch(const CommandContext& context, const Request& request,
                    const bench::Output& output) {
  auto options =
      options_of<bench::DispatchOptions, 4>("dispatch", request, "TOKENSxHIDDENxEXPERTSxTOP_K");
  for (const bench::DispatchSize& size : options.sizes)
    if (size.top_k > size.num_experts)
      throw UsageError("bench", fmt::format("--sizes: top_k {} is more than the {} experts",
                                            size.top_k, size.num_experts));
  require_ranks(context, "dispatch");
  if (!request.trace.empty()) take_trace(options, request, context.session->world());
  bench::run_dispatch(context.session->world(), options, request.repeats, output);
}

void bench_all_to_all(const CommandContext& context, const Request& request,
                      const bench::Output& output) {
  refuse_arguments("all_to_all", request);
  if (request.precision)
    throw UsageError("bench", "bench all_to_all moves bytes and takes no --precision");
  bench::AllToAllOptions options;
  replace_sizes<1>(options.sizes, request, "BYTES");
  require_ranks(context, "all_to_all");
  bench::run_all_to_all(context.session->world(), options, request.repeats, output);
}

std::vector<std::int64_t> lengths_of(const std::string& text) {
  std::vector<std::int64_t> lengths;
  for (const std::string& part : split(text, ',')) {
    const std::int64_t length = positive_number(part, std::int64_t{1} << 30);
    if (length == 0)
      throw UsageError("bench", fmt::format("--lengths {}: expected positions from 1 to 2^30, and "
                                            "commas between several",
                                            part.empty() ? "''" : part));
    lengths.push_back(length);
  }
  return lengths;
}

// "ring", "all_gather", "exact", "ulysses" or "RxU": how the ranks of the job divide.
void set_scheme(bench::RingOptions& options, const std::string& scheme, std::int64_t num_ranks) {
  const auto method = choice_of<ContextMethod>(scheme);
  if (method && *method != ContextMethod::automatic) {
    options.method = *method;
    return;
  }
  if (scheme == "exact") {
    options.method = ContextMethod::all_gather;
    options.exact = true;
    return;
  }
  if (scheme == "ulysses") {
    options.ulysses = num_ranks;
    return;
  }
  const std::vector<std::string> numbers = split(scheme, 'x');
  const bool is_pair = numbers.size() == 2;
  const std::int64_t ring = is_pair ? positive_number(numbers[0], num_ranks) : 0;
  const std::int64_t ulysses = is_pair ? positive_number(numbers[1], num_ranks) : 0;
  if (ring * ulysses != num_ranks)
    throw UsageError("bench",
                     fmt::format("--scheme {}: expected ring, all_gather, exact, ulysses, or "
                                 "RINGxULYSSES with a product of {} ranks",
                                 scheme, num_ranks));
  options.ulysses = ulysses;
}

std::int64_t at_least(std::string_view option, std::int64_t value, std::int64_t least) {
  if (value < least)
    throw UsageError("bench", fmt::format("--{} must be at least {}", option, least));
  return value;
}

void bench_ring(const CommandContext& context, const Request& request,
                const bench::Output& output) {
  refuse_arguments("ring", request);
  if (!request.sizes.empty()) throw UsageError("bench", "bench ring takes --lengths, not --sizes");
  Group& world = context.session->world();
  bench::RingOptions options;
  if (request.precision) options.precisions = precisions_of(request);
  if (request.lengths) options.lengths = lengths_of(*request.lengths);
  if (request.scheme) set_scheme(options, *request.scheme, world.size());
  if (request.layout) options.layout = *request.layout;
  if (request.progress) options.progress = *request.progress;
  if (request.window) options.window = at_least("window", *request.window, 0);
  if (request.heads) options.num_heads = at_least("heads", *request.heads, 1);
  if (request.kv_heads) options.num_kv_heads = at_least("kv-heads", *request.kv_heads, 1);
  if (request.head_dim) options.head_dim = at_least("head-dim", *request.head_dim, 1);
  if (options.num_heads % options.num_kv_heads != 0)
    throw UsageError("bench", fmt::format("--heads {} must be a multiple of --kv-heads {}",
                                          options.num_heads, options.num_kv_heads));
  bench::run_ring(world, options, request.repeats, output);
}

std::vector<MixerKind> kinds_of(const std::string& text) {
  std::vector<MixerKind> kinds;
  for (const std::string& name : split(text, ',')) {
    const auto kind = choice_of<MixerKind>(name);
    if (!kind || !bench::is_measured_mixer(*kind)) {
      std::string all;
      for (const std::string_view each : choice_names(MixerKind{}))
        if (bench::is_measured_mixer(*choice_of<MixerKind>(each)))
          all += fmt::format("{}{}", all.empty() ? "" : ", ", each);
      throw UsageError("bench", fmt::format("--kinds {}: expected some of {}, with commas between",
                                            name.empty() ? "''" : name, all));
    }
    kinds.push_back(*kind);
  }
  return kinds;
}

void bench_mixer(const CommandContext& context, const Request& request,
                 const bench::Output& output) {
  refuse_arguments("mixer", request);
  if (!request.sizes.empty()) throw UsageError("bench", "bench mixer takes --lengths, not --sizes");
  bench::MixerOptions options;
  options.precisions = precisions_of(request);
  if (request.kinds) options.kinds = kinds_of(*request.kinds);
  if (request.lengths) options.lengths = lengths_of(*request.lengths);
  if (request.heads) options.num_heads = at_least("heads", *request.heads, 1);
  if (request.head_dim) options.head_dim = at_least("head-dim", *request.head_dim, 1);
  if (request.chunk) options.chunk = at_least("chunk", *request.chunk, 1);
  bench::run_mixer(context.session->world(), options, request.repeats, output);
}

void bench_machine(const CommandContext& context, const Request& request, const bench::Output&) {
  refuse_arguments("machine", request);
  if (request.precision || !request.sizes.empty())
    throw UsageError("bench", "bench machine takes no --precision and no --sizes");
  bench_machine(context, request.machine);
}

// Options that one benchmark alone understands.
void refuse_machine_options(const std::string& name, const Request& request) {
  if (!request.machine.output.empty() || !request.machine.name.empty() || request.machine.quick)
    throw UsageError("bench", fmt::format("--output, --name and --quick are options of bench "
                                          "machine; bench {} has none",
                                          name));
}

void refuse_disturb(const std::string& name, const Request& request) {
  if (request.disturb)
    throw UsageError("bench",
                     fmt::format("--disturb is an option of bench step; bench {} has none", name));
}

void refuse_trace(const std::string& name, const Request& request) {
  if (!request.trace.empty())
    throw UsageError(
        "bench", fmt::format("--trace is an option of bench dispatch; bench {} has none", name));
}

// Options of bench ring or bench mixer, or of both, given to another.
void refuse_sequence_options(const std::string& name, const Request& request) {
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
  void (*run)(const CommandContext& context, const Request& request, const bench::Output& output);
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
  Request request;
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
