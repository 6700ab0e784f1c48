#include "launch/commands/context_table.hpp"

#include <fmt/core.h>

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
  open.context_split.method = "auto";
  return scheme_costs(problem, open);
}

bool is_chosen(const SchemeCost& cost, const ParallelConfig& chosen) {
  const ContextConfig& split = chosen.context_split;
  const std::string method = split.method == "all_gather" && split.ring > 1 ? "all_gather" : "ring";
  return cost.ring == split.ring && cost.ulysses == split.ulysses && cost.method == method;
}

std::string context_table(const ContextProblem& problem, const ParallelConfig& chosen) {
  const std::vector<SchemeCost> costs = all_scheme_costs(problem, chosen);
  if (costs.empty()) return {};
  const double num_layers = static_cast<double>(problem.windows.size());
  std::string out = fmt::format(
      "Sharing a sequence of {} positions over {} ranks, a layer and micro-batch, with {:.3g} "
      "TFLOP/s a rank and {:.3g} GB/s a link\n(parallel.context.rank_flops, link_bytes):\n"
      "  {:<24}{:>9}{:>9}{:>11}{:>11}{:>11}{:>12}{:>12}\n",
      problem.length, chosen.context, chosen.context_split.rank_flops / 1e12,
      chosen.context_split.link_bytes / 1e9, "scheme", "MB fwd", "MB bwd", "compute ms", "wire ms",
      "total ms", "hidden fwd", "hidden bwd");
  for (const SchemeCost& cost : costs)
    out += fmt::format(
        "  {:<24}{:>9.2f}{:>9.2f}{:>11.3f}{:>11.3f}{:>11.3f}{:>12}{:>12}{}\n", cost.text(),
        cost.forward.wire_bytes / num_layers / 1e6, cost.backward.wire_bytes / num_layers / 1e6,
        (cost.forward.compute_seconds + cost.backward.compute_seconds) / num_layers * 1e3,
        (cost.forward.wire_seconds + cost.backward.wire_seconds) / num_layers * 1e3,
        cost.seconds() / num_layers * 1e3, hidden_text(cost.forward), hidden_text(cost.backward),
        is_chosen(cost, chosen) ? "  chosen" : "");
  return out;
}

}  // namespace switchyard
