#include "trainer/device_batch.hpp"

#include "kernels/attention/key_ranges.hpp"
#include "kernels/host_copy.hpp"
#include "tensor/error.hpp"

namespace switchyard {

DeviceBatch::DeviceBatch(Device& device, const BatchLayout& layout, Objective& objective,
                         bool splits_sequences, bool restart_positions)
    : layout_(layout),
      objective_(objective),
      splits_sequences_(splits_sequences),
      restarts_(restart_positions) {
  const Shape rows = {layout.micro_batch * layout.local_length()};
  tokens_ = Tensor(device, Purpose::activation, DType::i32, rows);
  targets_ = Tensor(device, Purpose::activation, DType::i32, rows);
  if (objective.has_weights()) weights_ = Tensor(device, Purpose::activation, DType::f32, rows);
  sequence_ids_ = Tensor(device, Purpose::activation, DType::i64, {layout.micro_batch});
  positions_ = Tensor(device, Purpose::activation, DType::i32, rows);
  if (restarts_) {
    rotary_positions_ = Tensor(device, Purpose::activation, DType::i32, rows);
    document_begins_ = Tensor(device, Purpose::activation, DType::i32,
                              {layout.micro_batch, layout.sequence_length});
  }
  if (splits_sequences_) token_numbers_ = Tensor(device, Purpose::activation, DType::i32, rows);
  view_ = {tokens_, targets_, sequence_ids_, positions_, layout.micro_batch, layout.local_length(),
           weights_};
  count_positions();
}

// Positions and token numbers are the same for all batches.
void DeviceBatch::count_positions() {
  const auto number_from = [&](const TensorView& view, std::int64_t sequence_offset) {
    kernels::write_from_host<std::int32_t>(view, [&](std::span<std::int32_t> numbers) {
      auto out = numbers.begin();
      for (std::int64_t sequence = 0; sequence < layout_.micro_batch; ++sequence)
        for (const PositionRange& segment : layout_.local_segments())
          for (std::int64_t p = segment.begin; p < segment.end(); ++p)
            *out++ = static_cast<std::int32_t>(sequence * sequence_offset + p);
    });
  };
  number_from(positions_, 0);
  if (splits_sequences_) number_from(token_numbers_, layout_.sequence_length);
}

void DeviceBatch::upload(const Batch& batch) {
  if (!tokens_->device->is_plan()) {  // whose batches have no tokens
    const Examples examples = objective_.examples(batch);
    kernels::copy_from_host<std::int32_t>(examples.tokens, tokens_);
    kernels::copy_from_host<std::int32_t>(examples.targets, targets_);
    if (objective_.has_weights()) kernels::copy_from_host<float>(examples.weights, weights_);
    kernels::copy_from_host<std::int64_t>(batch.sequence_ids, sequence_ids_);
  }
  if (!restarts_) return;
  kernels::fill_document_begins(batch.document_starts, document_begins_);
  kernels::restart_positions(positions_, document_begins_, rotary_positions_);
}

void DeviceBatch::describe(Pass& pass) const {
  pass.sequence_length = layout_.local_length();
  pass.sequence_ids = sequence_ids_;
  pass.positions = positions_;
  pass.tokens = tokens_;
  pass.rotary_positions = restarts_ ? rotary_positions_ : positions_;
  if (!splits_sequences_) return;
  pass.split_length = layout_.sequence_length;
  pass.token_numbers = token_numbers_;
}

}  // namespace switchyard
