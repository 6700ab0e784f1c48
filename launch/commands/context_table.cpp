#include "launch/commands/context_table.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "launch/commands/table_text.hpp"
#include "trainer/number_text.hpp"

namespace switchyard {

namespace {

std::string hidden_text(const PassCost& cost) {
  return fmt::format("{:.0f}%", 100 * cost.hidden_share());
}

}  // namespace

std::vector<SchemeCost> all_scheme_costs(const ContextProblem& problem,
                                         const ParallelConfig& chosen) {
  if (chosen.context == 1) return {};
  ParallelConfig open = chosen;
  open.context_split.ring = 0;
  open.context_split.ulysses = 0;
  open.context_split.method = ContextMethod::automatic;
  return scheme_costs(problem, open);
}

bool is_chosen(const SchemeCost& cost, const ParallelConfig& chosen) {
  const ContextConfig& split = chosen.context_split;
  return cost.ring == split.ring && cost.ulysses == split.ulysses &&
         (split.ring == 1 || cost.method == split.method);
}

std::string context_table(const ContextProblem& problem, const ParallelConfig& chosen) {
  const std::vector<SchemeCost> costs = all_scheme_costs(problem, chosen);
  if (costs.empty()) return {};
  const double num_layers = static_cast<double>(problem.patterns.size());
  double most_bytes = 0;
  double most_seconds = 0;
  double most_memory = 0;
  for (const SchemeCost& cost : costs) {
    most_bytes = std::max({most_bytes, cost.forward.wire_bytes, cost.backward.wire_bytes});
    most_seconds = std::max(most_seconds, cost.seconds());
    most_memory = std::max(most_memory, static_cast<double>(cost.memory_bytes));
  }
  const Unit bytes = byte_unit(most_bytes / num_layers);
  const Unit time = time_unit(most_seconds / num_layers);
  const Unit memory = byte_unit(most_memory);
  const auto in = [num_layers](const Unit& unit, double sum, int digits) {
    return fmt::format("{:.{}f}", sum / num_layers / unit.size, digits);
  };
  std::vector<std::vector<std::string>> rows = {
      {"scheme", fmt::format("{} fwd", bytes.name), fmt::format("{} bwd", bytes.name),
       fmt::format("compute {}", time.name), fmt::format("wire {}", time.name),
       fmt::format("total {}", time.name), "hidden fwd", "hidden bwd",
       fmt::format("holds {}", memory.name)}};
  for (const SchemeCost& cost : costs)
    rows.push_back(
        {cost.text(), in(bytes, cost.forward.wire_bytes, 2), in(bytes, cost.backward.wire_bytes, 2),
         in(time, cost.forward.compute_seconds + cost.backward.compute_seconds, 3),
         in(time, cost.forward.wire_seconds + cost.backward.wire_seconds, 3),
         in(time, cost.seconds(), 3), hidden_text(cost.forward), hidden_text(cost.backward),
         fmt::format("{:.2f}", static_cast<double>(cost.memory_bytes) / memory.size),
         is_chosen(cost, chosen) ? "chosen" : ""});
  return fmt::format(
             "Sharing a sequence of {} positions over {} ranks, a layer and micro-batch, with "
             "{:.3g} TFLOP/s a rank and {:.3g} GB/s a link\n(parallel.context.rank_flops, "
             "link_bytes):\n",
             problem.length, chosen.context, chosen.context_split.rank_flops / 1e12,
             chosen.context_split.link_bytes / 1e9) +
         table_text(rows);
}

}  // namespace switchyard
