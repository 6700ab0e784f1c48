#include "launch/commands/dispatch_table.hpp"

#include <fmt/format.h>

#include "experts/dispatch/dispatch_bytes.hpp"
#include "launch/commands/table_text.hpp"
#include "trainer/batch_layout.hpp"

namespace switchyard {

std::string dispatch_table(const Config& config, std::int64_t ranks_per_node) {
  const ExpertsConfig& experts = config.experts;
  const auto num_ranks = static_cast<int>(config.parallel.expert);
  if (num_ranks == 1 || !experts.any_layer_has_experts(config.model.num_layers)) return {};
  const std::int64_t nodes_of =
      experts.dispatch.ranks_per_node > 0 ? experts.dispatch.ranks_per_node : ranks_per_node;
  const std::int64_t micro_batch = context_problem(config, config.parallel).num_sequences;
  const auto num_tokens = static_cast<double>(micro_batch * config.model.sequence_length) /
                          static_cast<double>(config.parallel.context);
  const DType compute = config.run.precision == Precision::bf16 ? DType::bf16 : DType::f32;
  const auto row_bytes = static_cast<double>(kernels::wire_row_bytes(
      experts.dispatch.wire, compute, experts.width_of(config.model.hidden)));
  const std::vector<DispatchRows> kinds =
      dispatch_rows(Placement::contiguous(experts.num_experts, num_ranks), experts.top_k, nodes_of);
  std::vector<std::vector<std::string>> rows = {{"kind", "between nodes", "within a node"}};
  for (const DispatchRows& each : kinds)
    rows.push_back({fmt::format("{}{}", name_of(each.kind),
                                each.kind == experts.dispatch.kind ? " (configured)" : ""),
                    fmt::format("{:.3f} MB", each.between_nodes * num_tokens * row_bytes * 1e-6),
                    fmt::format("{:.3f} MB", each.within_node * num_tokens * row_bytes * 1e-6)});
  return fmt::format(
      "Tokens on their way to experts, sent by a rank in a layer and micro-step, nodes of {} {}, "
      "all "
      "experts alike likely:\n{}Fewest bytes between nodes, then within: {}\n",
      nodes_of, nodes_of == 1 ? "rank" : "ranks", table_text(rows), name_of(least_rows(kinds)));
}

}  // namespace switchyard
