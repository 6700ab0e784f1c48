#include "trainer/routing/routing_record.hpp"

#include "kernels/rows/elementwise.hpp"

namespace switchyard {

RoutingRecord::RoutingRecord(Device& device, const Config& config, const BatchLayout& layout) {
  const std::int64_t num_sequences = layout.num_micro_steps() * layout.micro_batch;
  const Shape choices{std::ssize(moe_layers_of(config)), num_sequences * layout.local_length(),
                      config.experts.top_k};
  experts_ = Tensor(device, Purpose::workspace, DType::i32, choices);
  weights_ = Tensor(device, Purpose::workspace, DType::f32, choices);
  if (config.experts.may_drop())
    considered_ = Tensor(device, Purpose::workspace, DType::i32, choices);
  sequence_ids_ = Tensor(device, Purpose::workspace, DType::i64, {num_sequences});
}

void RoutingRecord::observe(std::int64_t moe_layer, const GateRecord& gate, std::int64_t num_tokens,
                            const Pass& pass) {
  const auto keep = [&](const Tensor& from, const Tensor& into) {
    const std::int64_t begin = pass.micro_step * num_tokens;
    kernels::copy(from->slice_rows(0, num_tokens),
                  into.view()[moe_layer].slice_rows(begin, begin + num_tokens));
  };
  keep(gate.indices, experts_);
  keep(gate.weights, weights_);
  if (!considered_.empty()) keep(gate.considered, considered_);
  if (moe_layer > 0) return;
  const std::int64_t num_sequences = pass.sequence_ids.numel();
  const std::int64_t first = pass.micro_step * num_sequences;
  kernels::copy(pass.sequence_ids, sequence_ids_->slice_rows(first, first + num_sequences));
}

std::vector<std::int64_t> moe_layers_of(const Config& config) {
  std::vector<std::int64_t> layers;
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer)
    if (config.experts.layer_has_experts(layer)) layers.push_back(layer);
  return layers;
}

}  // namespace switchyard
