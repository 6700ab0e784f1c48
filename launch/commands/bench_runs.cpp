#include "launch/commands/bench_runs.hpp"

#include <fmt/format.h>

#include <iostream>
#include <utility>

#include "bench/all_to_all.hpp"
#include "bench/attention.hpp"
#include "bench/dispatch.hpp"
#include "bench/experts.hpp"
#include "bench/linear.hpp"
#include "bench/mixer.hpp"
#include "bench/ring.hpp"
#include "bench/step.hpp"
#include "launch/config/config_file.hpp"
#include "trainer/run/run_setup.hpp"

namespace switchyard {

namespace {

void require_ranks(const CommandContext& context, const std::string& name) {
  if (context.session->world().size() < 2)
    throw UsageError("bench",
                     fmt::format("bench {0} measures an exchange between ranks and needs two at "
                                 "least: mpirun -n 2 switchyard bench {0}",
                                 name));
}

// The trace's experts and choices go with the default's tokens, or with sizes that agree with them.
void take_trace(bench::DispatchOptions& options, const BenchRequest& request, Group& world) {
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

}  // namespace

void bench_step(const CommandContext& context, const BenchRequest& request,
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

void bench_linear(const CommandContext& context, const BenchRequest& request,
                  const bench::Output& output) {
  const auto options = options_of<bench::LinearOptions, 3>("linear", request, "ROWSxOUTxIN");
  bench::run_linear(context.session->world(), options, request.repeats, output);
}

void bench_attention(const CommandContext& context, const BenchRequest& request,
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

void bench_experts(const CommandContext& context, const BenchRequest& request,
                   const bench::Output& output) {
  const auto options =
      options_of<bench::ExpertsOptions, 4>("experts", request, "EXPERTSxROWSxHIDDENxINTERMEDIATE");
  bench::run_experts(context.session->world(), options, request.repeats, output);
}

void bench_dispatch(const CommandContext& context, const BenchRequest& request,
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

void bench_all_to_all(const CommandContext& context, const BenchRequest& request,
                      const bench::Output& output) {
  refuse_arguments("all_to_all", request);
  if (request.precision)
    throw UsageError("bench", "bench all_to_all moves bytes and takes no --precision");
  bench::AllToAllOptions options;
  replace_sizes<1>(options.sizes, request, "BYTES");
  require_ranks(context, "all_to_all");
  bench::run_all_to_all(context.session->world(), options, request.repeats, output);
}

void bench_ring(const CommandContext& context, const BenchRequest& request,
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

void bench_mixer(const CommandContext& context, const BenchRequest& request,
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

void bench_machine(const CommandContext& context, const BenchRequest& request,
                   const bench::Output&) {
  refuse_arguments("machine", request);
  if (request.precision || !request.sizes.empty())
    throw UsageError("bench", "bench machine takes no --precision and no --sizes");
  bench_machine(context, request.machine);
}

}  // namespace switchyard
