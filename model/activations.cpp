#include "model/activations.hpp"

#include <algorithm>

#include "experts/dispatch/token_delivery.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/routing/balance.hpp"
#include "kernels/routing/bias_quantiles.hpp"
#include "kernels/routing/routing_figures.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/transformer.hpp"

namespace switchyard {

namespace {

// Rows that the fullest rank receives in a layer when all experts are equally loaded.
std::int64_t balanced_rows(const ExpertsConfig& experts, const Placement& placement,
                           std::int64_t num_tokens) {
  if (experts.num_experts == 0) return 0;
  const std::int64_t slots = num_tokens * experts.top_k;
  const std::int64_t slots_of_expert = (slots + experts.num_experts - 1) / experts.num_experts;
  std::int64_t most = 0;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    std::int64_t rows = 0;
    for (const std::int64_t expert : placement.experts_of(rank)) {
      const std::int64_t replicas = std::ssize(placement.places_of(expert));
      rows += (slots_of_expert + replicas - 1) / replicas;
    }
    most = std::max(most, rows);
  }
  return placement.num_ranks() * most;
}

// By place: 1 where its rank is not on this rank's node.
Tensor far_places(Device& device, const Placement& placement, const NodeMap& nodes, int own_rank) {
  Tensor is_far(device, Purpose::workspace, DType::i32, {placement.num_places()});
  kernels::write_from_host<std::int32_t>(is_far, [&](std::span<std::int32_t> places) {
    for (int rank = 0; rank < placement.num_ranks(); ++rank)
      std::fill_n(places.begin() + placement.first_place(rank), placement.num_places_of(rank),
                  nodes.node_of(rank) == nodes.node_of(own_rank) ? 0 : 1);
  });
  return is_far;
}

Activations::Output make_output(const Transformer& model, std::int64_t num_tokens) {
  Device& device = model.device();
  const Shape shape{num_tokens, model.config().hidden};
  return {Tensor(device, Purpose::activation, model.compute(), shape),
          Block::make_normed(device, model.compute(), num_tokens, model.config().hidden),
          Head::Scratch(device, model.config(), model.compute(), num_tokens, model.unit_rows()),
          Tensor(device, Purpose::activation, model.compute(), shape)};
}

}  // namespace

Activations::Activations(const Transformer& model, std::int64_t num_sequences,
                         std::int64_t sequence_length, const ActivationOptions& options)
    : Activations(model, num_sequences, SequenceSplit(sequence_length), options) {}

Activations::Activations(const Transformer& model, std::int64_t num_sequences,
                         const SequenceSplit& split, const ActivationOptions& options)
    : Activations(model, num_sequences, split, split.num_local(model.mesh().index(Axis::context)),
                  options) {}

Activations::Activations(const Transformer& model, std::int64_t num_sequences,
                         const SequenceSplit& split, std::int64_t length,
                         const ActivationOptions& options)
    : num_sequences_(num_sequences),
      sequence_length_(length),
      capacity_(options.planned_rows),
      records_(model.blocks(), options, num_sequences * length, num_sequences,
               balanced_rows(model.experts_config(), model.placement(), num_sequences * length),
               capacity_),
      scratch_(model.device(), model.mesh(), model.placement(), model.config(),
               model.experts_config(), model.compute(), num_sequences, split, capacity_,
               model.unit_rows()),
      positions_(model.device(), model.config(), model.compute(), num_sequences * length,
                 split.length()),
      output_(make_output(model, num_sequences * length)),
      top_k_(model.experts_config().top_k) {
  std::int64_t num_loads = 0;
  for (const auto& block : model.blocks()) {
    block->add_scratch(scratch_, num_sequences, split);
    load_row_.push_back(num_loads);
    if (block->has_experts()) ++num_loads;
  }
  if (num_loads > 0) {
    loads_ = Tensor(model.device(), Purpose::workspace, DType::i64,
                    {num_loads, model.placement().num_places() + 3});
    const Group& expert = model.mesh().group(Axis::expert);
    is_far_ =
        far_places(model.device(), model.placement(),
                   NodeMap(expert, model.experts_config().dispatch.ranks_per_node), expert.rank());
  }
  if (num_loads > 0 && model.experts_config().counts_step())
    choices_ = Tensor(model.device(), Purpose::workspace, DType::i64,
                      {num_loads, model.experts_config().num_experts});
  if (num_loads > 0 && model.experts_config().has_quantiles())
    margins_ = Tensor(model.device(), Purpose::workspace, DType::i64,
                      {num_loads, model.experts_config().num_experts * kernels::num_margin_bins});
  if (num_loads > 0 && model.experts_config().router.replays())
    for (Tensor* choices : {&replayed_considered_, &replayed_indices_})
      *choices = Tensor(model.device(), Purpose::workspace, DType::i32,
                        {num_loads, num_sequences * length, top_k_});
  set_documents({});
}

RouterScratch::Replayed Activations::replayed() const {
  if (replayed_indices_.empty()) return {};
  return {replayed_considered_, replayed_indices_};
}

void Activations::set_documents(kernels::DocumentStarts document_starts) {
  for (auto& [kind, scratch] : scratch_.mixers) scratch->set_documents(document_starts);
}

void Activations::clear_loads() {
  if (!loads_.empty()) kernels::fill_zero(loads_);
  if (!choices_.empty()) kernels::fill_zero(choices_);
  if (!margins_.empty()) kernels::fill_zero(margins_);
}

void Activations::begin_count(std::size_t layer) {
  const std::int64_t row = load_row_[layer];
  scratch_.moe->router.step_counts =
      choices_.empty() ? TensorView{} : choices_->slice_rows(row, row + 1).flat();
  scratch_.moe->router.margins =
      margins_.empty() ? TensorView{} : margins_->slice_rows(row, row + 1).flat();
  const TensorView load = loads_.view()[row];
  scratch_.moe->router.entropy = load.slice_rows(load.numel() - 1, load.numel());
  if (replayed_indices_.empty()) return;
  scratch_.moe->router.replayed = {replayed_considered_.view()[row], replayed_indices_.view()[row]};
}

void Activations::add_load(std::size_t layer) {
  const std::int64_t row = load_row_[layer];
  const TensorView& counts = scratch_.moe->dispatch.counts;
  const TensorView load = loads_.view()[row];
  const std::int64_t num_places = is_far_->numel();
  kernels::add_expert_load(counts, records_.num_tokens(layer) * top_k_,
                           load.slice_rows(0, num_places + 1));
  kernels::add_marked(counts, is_far_, load.slice_rows(num_places + 1, num_places + 2));
}

}  // namespace switchyard
