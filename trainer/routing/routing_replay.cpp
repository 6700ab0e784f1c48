#include "trainer/routing/routing_replay.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/host_copy.hpp"
#include "tensor/error.hpp"
#include "trainer/routing/routing_record.hpp"

namespace switchyard {

namespace {

std::string describe(const TraceShape& shape) {
  return fmt::format("num_experts {}, top_k {}, layers with experts {}, sequence_length {}",
                     shape.num_experts, shape.top_k, fmt::join(shape.layers, " "),
                     shape.sequence_length);
}

}  // namespace

RoutingReplay::RoutingReplay(const Config& config, const BatchLayout& layout)
    : trace_(config.experts.router.replay), layout_(layout) {
  const TraceShape wanted{.layers = moe_layers_of(config),
                          .num_experts = config.experts.num_experts,
                          .top_k = config.experts.top_k,
                          .sequence_length = config.model.sequence_length};
  if (trace_.shape() != wanted)
    throw ConfigError(fmt::format(
        "experts.router.replay: {} was traced with {}, and this run has {}; make them agree",
        trace_.path(), describe(trace_.shape()), describe(wanted)));
}

void RoutingReplay::require(std::int64_t first, std::int64_t last,
                            std::int64_t data_position) const {
  const std::vector<std::int64_t> steps = trace_.steps();
  for (std::int64_t step = first; step <= last; ++step) {
    if (!trace_.has_step(step))
      throw DataError(fmt::format(
          "experts.router.replay: {} has no step {}, and this run takes the steps {} to {}; the "
          "trace has {} steps from {} to {}. Trace all steps that are to be replayed "
          "(trace.steps), "
          "begin at a checkpoint of the step before the first (checkpoint.resume), and end with "
          "the "
          "last (train.num_steps)",
          trace_.path(), step, first, last, steps.size(), steps.front(), steps.back()));
    const std::vector<std::int64_t> ids = trace_.sequence_ids(step);
    const std::int64_t begin = data_position + (step - first) * layout_.global_batch;
    for (std::int64_t id = begin; id < begin + layout_.global_batch; ++id) row_of(ids, id, step);
  }
}

std::int64_t RoutingReplay::row_of(const std::vector<std::int64_t>& ids, std::int64_t id,
                                   std::int64_t step) const {
  const auto found = std::lower_bound(ids.begin(), ids.end(), id);
  if (found == ids.end() || *found != id)
    throw DataError(fmt::format(
        "experts.router.replay: in step {} {} has no sequence {} of the data; it has {} from {} to "
        "{}. Give the run the train.global_batch and the position in the data that were traced",
        step, trace_.path(), id, ids.size(), ids.empty() ? 0 : ids.front(),
        ids.empty() ? 0 : ids.back()));
  return found - ids.begin();
}

void RoutingReplay::load(std::int64_t step, const Batch& batch,
                         const RouterScratch::Replayed& into) const {
  const std::vector<std::int64_t> ids = trace_.sequence_ids(step);
  const std::int64_t num_layers = into.indices.shape[0], top_k = into.indices.shape[2];
  const std::int64_t num_tokens = into.indices.shape[1];
  const auto write = [&](TraceReader::What what, const TensorView& to) {
    std::vector<std::int32_t> choices(static_cast<std::size_t>(to.numel()), -1);
    std::int64_t token = 0;  // the first of those that are read
    for (const std::int64_t id : batch.sequence_ids) {
      const std::int64_t row = row_of(ids, id, step);
      for (const PositionRange& segment : layout_.local_segments()) {
        const std::vector<std::int32_t> part = trace_.read(what, step, row, segment);
        const std::int64_t numbers = segment.count * top_k;
        for (std::int64_t layer = 0; layer < num_layers; ++layer)
          std::copy_n(part.begin() + layer * numbers, numbers,
                      choices.begin() + (layer * num_tokens + token) * top_k);
        token += segment.count;
      }
    }
    kernels::copy_from_host<std::int32_t>(choices, to.flat());
  };
  write(TraceReader::What::considered, into.considered);
  write(TraceReader::What::experts, into.indices);
}

}  // namespace switchyard
