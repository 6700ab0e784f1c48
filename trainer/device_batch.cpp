#include "trainer/device_batch.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

template <class T>
void copy_to(const TensorView& view, const std::vector<T>& values) {
  expect(static_cast<std::int64_t>(values.size()) == view.numel(), "a batch of the layout's size");
  std::copy(values.begin(), values.end(), view.as<T>());
}

// Row numbers and positions are 32-bit, and so are the numbers of a micro-batch's tokens.
void require_numbers(const BatchLayout& layout) {
  const std::int64_t num_tokens = layout.micro_batch * layout.sequence_length;
  if (num_tokens <= std::numeric_limits<std::int32_t>::max()) return;
  throw ConfigError(
      fmt::format("train.micro_batch x model.sequence_length = {} x {} = {} tokens of a "
                  "micro-batch; at most {} "
                  "can be numbered, so make train.micro_batch smaller",
                  layout.micro_batch, layout.sequence_length, num_tokens,
                  std::numeric_limits<std::int32_t>::max()));
}

}  // namespace

DeviceBatch::DeviceBatch(Device& device, const BatchLayout& layout, bool splits_sequences,
                         bool restart_positions)
    : layout_(layout), splits_sequences_(splits_sequences), restarts_(restart_positions) {
  require_numbers(layout);
  const Shape rows = {layout.micro_batch * layout.local_length()};
  tokens_ = Tensor(device, Purpose::activation, DType::i32, rows);
  targets_ = Tensor(device, Purpose::activation, DType::i32, rows);
  sequence_ids_ = Tensor(device, Purpose::activation, DType::i64, {layout.micro_batch});
  positions_ = Tensor(device, Purpose::activation, DType::i32, rows);
  if (restarts_) rotary_positions_ = Tensor(device, Purpose::activation, DType::i32, rows);
  if (splits_sequences_) token_numbers_ = Tensor(device, Purpose::activation, DType::i32, rows);
  view_ = {tokens_, targets_, sequence_ids_, positions_, layout.micro_batch, layout.local_length()};
  if (!device.is_plan()) count_positions();
}

// Positions and token numbers are the same for all batches.
void DeviceBatch::count_positions() {
  std::int32_t* position = positions_->as<std::int32_t>();
  std::int32_t* number = splits_sequences_ ? token_numbers_->as<std::int32_t>() : nullptr;
  for (std::int64_t sequence = 0; sequence < layout_.micro_batch; ++sequence)
    for (const PositionRange& segment : layout_.local_segments())
      for (std::int64_t p = segment.begin; p < segment.begin + segment.count; ++p) {
        *position++ = static_cast<std::int32_t>(p);
        if (number != nullptr)
          *number++ = static_cast<std::int32_t>(sequence * layout_.sequence_length + p);
      }
}

// Positions ascend within a sequence, so the documents are passed once.
void DeviceBatch::restart_positions(const std::vector<std::vector<std::int32_t>>& document_starts) {
  expect(static_cast<std::int64_t>(document_starts.size()) == layout_.micro_batch,
         "the documents of every sequence");
  const std::int64_t length = layout_.local_length();
  for (std::int64_t sequence = 0; sequence < layout_.micro_batch; ++sequence) {
    const std::vector<std::int32_t>& starts = document_starts[static_cast<std::size_t>(sequence)];
    const std::int32_t* position = positions_->as<std::int32_t>() + sequence * length;
    std::int32_t* rotary = rotary_positions_->as<std::int32_t>() + sequence * length;
    auto next = starts.begin();
    std::int32_t begin = 0;  // of the position's document
    for (std::int64_t i = 0; i < length; ++i) {
      while (next != starts.end() && *next <= position[i]) begin = *next++;
      rotary[i] = position[i] - begin;
    }
  }
}

void DeviceBatch::upload(const Batch& batch) {
  if (tokens_->device->is_plan()) return;
  copy_to(tokens_, batch.tokens);
  copy_to(targets_, batch.targets);
  copy_to(sequence_ids_, batch.sequence_ids);
  if (restarts_) restart_positions(batch.document_starts);
}

void DeviceBatch::describe(Pass& pass) const {
  pass.sequence_length = layout_.local_length();
  pass.sequence_ids = sequence_ids_;
  pass.positions = positions_;
  pass.rotary_positions = restarts_ ? rotary_positions_ : positions_;
  if (!splits_sequences_) return;
  pass.split_length = layout_.sequence_length;
  pass.token_numbers = token_numbers_;
}

}  // namespace switchyard
