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
  const std::int64_t width = experts.width_of(config.model.hidden);
  const auto row_bytes = [&](kernels::WireFormat format, DType type) {
    return num_tokens * static_cast<double>(kernels::wire_row_bytes(format, type, width));
  };
  const double out = row_bytes(experts.dispatch.wire, compute);
  const double back = row_bytes(experts.dispatch.wire_back(), compute);
  const double sums = row_bytes(kernels::WireFormat::compute, DType::f32);
  const std::vector<DispatchRows> kinds =
      dispatch_rows(Placement::contiguous(experts.num_experts, num_ranks), experts.top_k, nodes_of);
  std::vector<std::vector<std::string>> rows = {{"kind", "to experts, between nodes",
                                                 "within a node", "back, between nodes",
                                                 "within a node"}};
  const bool is_summed = experts.dispatch.returns == DispatchReturn::summed;
  const auto add = [&](std::string_view name, bool is_configured, const DispatchRows& going,
                       const DispatchRows& coming, double coming_bytes) {
    std::vector<std::string> row = {
        fmt::format("{}{}", name, is_configured ? " (configured)" : "")};
    for (const double bytes :
         {going.between_nodes * out, going.within_node * out, coming.between_nodes * coming_bytes,
          coming.within_node * coming_bytes})
      row.push_back(fmt::format("{:.3f} MB", bytes * 1e-6));
    rows.push_back(std::move(row));
  };
  for (const DispatchRows& each : kinds) {
    const bool is_configured = each.kind == experts.dispatch.kind;
    add(name_of(each.kind), is_configured && !is_summed, each, kinds.front(), back);
    if (each.kind == DispatchKind::hierarchical)
      add("hierarchical, return: summed", is_configured && is_summed, each, each, sums);
  }
  return fmt::format(
      "Tokens on their way to experts and what these return, sent by a rank in a layer and "
      "micro-step, nodes of {} {}, all experts alike likely:\n{}Fewest bytes to experts between "
      "nodes, then within: {}\n",
      nodes_of, nodes_of == 1 ? "rank" : "ranks", table_text(rows), name_of(least_rows(kinds)));
}

}  // namespace switchyard
