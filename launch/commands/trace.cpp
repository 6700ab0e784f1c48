// switchyard trace: what traces of routing say. The work is in trainer/routing.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <iostream>

#include "data/files/atomic_file.hpp"
#include "launch/commands/commands.hpp"
#include "launch/commands/table_text.hpp"
#include "launch/options.hpp"
#include "parallel/placement_choice.hpp"
#include "trainer/routing/trace_statistics.hpp"

namespace switchyard {

namespace {

// "3 + 5: 2.1 x", of the pair with the largest lift among those that are often enough to tell.
std::string closest_pair(const LayerTraffic& layer) {
  constexpr std::int64_t least_tokens = 10;
  std::string text = "-";
  double largest = 0;
  for (std::int64_t a = 0; a < std::ssize(layer.loads); ++a)
    for (std::int64_t b = a + 1; b < std::ssize(layer.loads); ++b) {
      if (layer.pair(a, b) < least_tokens || layer.lift(a, b) <= largest) continue;
      largest = layer.lift(a, b);
      text = fmt::format("{} + {}: {:.2f} x", a, b, largest);
    }
  return text;
}

void print_layers(const std::vector<LayerTraffic>& layers) {
  std::vector<std::vector<std::string>> rows = {{"layer", "load max/mean", "without tokens",
                                                 "dropped", "largest weight",
                                                 "closest pair, by chance"}};
  for (const LayerTraffic& layer : layers) {
    const auto num_tokens = static_cast<double>(std::max<std::int64_t>(layer.num_tokens, 1));
    rows.push_back({fmt::format("{}", layer.layer), fmt::format("{:.3f}", layer.max_over_mean()),
                    fmt::format("{}", std::ranges::count(layer.loads, 0)),
                    fmt::format("{}", layer.num_dropped),
                    fmt::format("{:.3f}", layer.largest_shares / num_tokens), closest_pair(layer)});
  }
  std::cout << table_text(rows);
}

// Of all layers together, which share a placement.
void print_order(const std::vector<LayerTraffic>& layers, int num_ranks,
                 std::int64_t num_replicas) {
  std::vector<std::int64_t> loads(layers.front().loads.size(), 0);
  for (const LayerTraffic& layer : layers)
    std::ranges::transform(layer.loads, loads, loads.begin(), std::plus{});
  const std::vector<std::int64_t> order = order_with_replicas(loads, num_ranks, num_replicas);
  const auto num_experts = std::ssize(loads);
  std::cout << fmt::format(
      "On {} ranks the fullest would have {:.3f} times the mean's rows, and {:.3f} with experts in "
      "order:\nexperts.placement.order=[{}]\n",
      num_ranks, rank_imbalance(Placement::in_order_of(order, num_ranks), loads),
      rank_imbalance(Placement::contiguous(num_experts, num_ranks), loads), fmt::join(order, ", "));
}

}  // namespace

int run_trace(const CommandContext& context) {
  std::vector<std::string> arguments;
  std::string coactivation, load;
  std::int64_t num_ranks = 0, num_replicas = 0;
  Options options("trace", "show PATH",
                  "Shows a trace of routing (trace: {routing: true, steps: ...}): a trace.h5, its "
                  "folder, or a run's, whose traces then count together. By layer: the load of its "
                  "experts, choices without an expert, the share of a token's largest weight, and "
                  "the two experts that tokens go to together most often compared with chance. "
                  "docs/traces.md says what is in a trace.");
  options
      .add_path("coactivation", "OUT.csv", coactivation,
                "write how many tokens each pair of experts has, by layer")
      .add_path("load", "OUT.csv", load, "write how many tokens each expert has, by layer")
      .add("ranks", "N", num_ranks,
           "print where experts should live on so many ranks of the expert axis, by their loads")
      .add("replicas", "M", num_replicas,
           "with --ranks: with so many places more, for replicas of the fullest experts")
      .arguments("ACTION", arguments);
  if (!options.parse(context.arguments)) return 0;
  if (arguments.empty() || arguments.front() != "show")
    throw UsageError("trace", "say what to do: show");
  if (num_ranks < 0 || num_ranks > 1'000'000)
    throw UsageError("trace", "--ranks must be from 1 to 1000000");
  if (num_replicas < 0 || num_replicas > 1'000'000 || (num_replicas > 0 && num_ranks == 0))
    throw UsageError("trace", "--replicas must be from 0 to 1000000, and needs --ranks");
  if (arguments.size() != 2) throw UsageError("trace", "show takes one path");
  const TraceReader trace(arguments[1]);
  const std::vector<LayerTraffic> layers = traffic_of(trace);
  const std::vector<std::int64_t> steps = trace.steps();
  if (!coactivation.empty()) write_file_atomically(coactivation, coactivation_csv(layers));
  if (!load.empty()) write_file_atomically(load, load_csv(layers));
  std::cout << fmt::format("{}: {} steps from {} to {}, {} tokens, top {} of {} experts\n",
                           trace.path(), steps.size(), steps.front(), steps.back(),
                           layers.front().num_tokens, trace.shape().top_k,
                           trace.shape().num_experts);
  print_layers(layers);
  if (num_ranks > 0) print_order(layers, static_cast<int>(num_ranks), num_replicas);
  std::cout << std::flush;
  return 0;
}

}  // namespace switchyard
