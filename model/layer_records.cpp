#include "model/layer_records.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"
#include "tensor/work_record.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t megabyte = 1'000'000;
constexpr double poll_seconds = 0.001;  // between looks at other exchanges while waiting

double bytes_in_use(std::span<const RecordTensor> tensors) {
  double bytes = 0;
  for (const RecordTensor& tensor : tensors)
    bytes += static_cast<double>(tensor.used().num_bytes());
  return bytes;
}

}  // namespace

LayerRecords::LayerRecords(const Blocks& blocks, const ActivationOptions& options,
                           std::int64_t num_tokens, std::int64_t num_sequences,
                           std::int64_t balanced_rows, RowCapacity& capacity)
    : blocks_(blocks), options_(options), capacity_(capacity) {
  layers_.resize(blocks.size());
  spill_index_.resize(blocks.size());
  routes_.resize(blocks.size());
  copy_numbers_.resize(blocks.size());
  for (std::size_t layer = 0; layer < blocks.size(); ++layer) {
    const Block& block = *blocks[layer];
    Owned& own = layers_[layer];
    switch (options_.policy_of(layer)) {
      case LayerPolicy::keep:
        own.saved = block.make_saved(num_tokens, num_sequences);
        own.derived = block.make_derived(num_tokens, num_sequences, true);
        break;
      case LayerPolicy::recompute:
        own.saved = block.make_saved(num_tokens, num_sequences);
        if (working_.mixer_norm.rstd.empty())
          working_ = block.make_derived(num_tokens, num_sequences, false);
        else
          block.extend_derived(working_, num_tokens, num_sequences, false);
        break;
      case LayerPolicy::spill:
        spill_index_[layer] = spilled_layers_.size();
        spilled_layers_.push_back(layer);
        break;
    }
    register_buffers(own);
  }
  working_.for_each_tensor(0, capacity_.adder());
  if (!spilled_layers_.empty()) make_pool(num_tokens, num_sequences, balanced_rows);
}

void LayerRecords::register_buffers(Owned& record) {
  record.saved.for_each_tensor(capacity_.adder());
  record.derived.for_each_tensor(0, capacity_.adder());
}

LayerRecords::Owned LayerRecords::make_pool_record(std::int64_t num_tokens,
                                                   std::int64_t num_sequences) const {
  const Block& first = *blocks_[spilled_layers_.front()];
  Owned record{first.make_saved(num_tokens, num_sequences),
               first.make_derived(num_tokens, num_sequences, true)};
  for (const std::size_t layer : spilled_layers_) {
    blocks_[layer]->extend_saved(record.saved, num_tokens, num_sequences);
    blocks_[layer]->extend_derived(record.derived, num_tokens, num_sequences, true);
  }
  return record;
}

// As the ledger counts them once the growable buffers have room for the balanced rows.
std::int64_t LayerRecords::bytes_of(Owned& record, std::int64_t balanced_rows) {
  std::int64_t bytes = 0;
  const auto add = [&](const RecordTensor& part) {
    const TensorView& view = *part.tensor;
    const std::int64_t rows = part.follows_rows ? balanced_rows : view.rows();
    bytes += MemoryLedger::rounded(rows * view.row_stride * size_of(view.dtype));
  };
  record.saved.for_each_tensor(add);
  record.derived.for_each_tensor(0, add);
  return bytes;
}

std::int64_t LayerRecords::pool_size(std::int64_t record_bytes) const {
  const std::int64_t num_layers = std::ssize(spilled_layers_);
  const std::int64_t least = std::min<std::int64_t>(2, num_layers);
  if (options_.memory_bytes == 0) return least;
  const std::int64_t fitting = options_.memory_bytes / record_bytes;
  if (fitting < least)
    throw Collective<ConfigError>(fmt::format(
        "activations.memory_megabytes is {}, but spilling needs {} records of {} bytes at once: "
        "one "
        "for the layer at work, one on its way to the store or back. Use at least {}, or 0 for the "
        "least that works",
        options_.memory_bytes / megabyte, least, record_bytes,
        (least * record_bytes + megabyte - 1) / megabyte));
  return std::min(fitting, num_layers);
}

void LayerRecords::make_pool(std::int64_t num_tokens, std::int64_t num_sequences,
                             std::int64_t balanced_rows) {
  expect(options_.store != nullptr, "a store for spilled layers");
  pool_.push_back(make_pool_record(num_tokens, num_sequences));
  const std::int64_t num_records = pool_size(bytes_of(pool_.front(), balanced_rows));
  while (std::ssize(pool_) < num_records)
    pool_.push_back(make_pool_record(num_tokens, num_sequences));
  for (Owned& record : pool_) register_buffers(record);
  device_ = pool_.front().saved.stream->device;
  for (const std::size_t layer : spilled_layers_)
    if (moves(layer))
      options_.store->prepare(static_cast<std::int64_t>(layer), tensors_of(layer), capacity_);
}

LayerRecords::Record LayerRecords::record_of(std::size_t layer) {
  Owned& own = layers_[layer];
  switch (options_.policy_of(layer)) {
    case LayerPolicy::recompute:
      return {own.saved, working_};
    case LayerPolicy::spill: {
      Owned& record = pool_record(layer);
      return {record.saved, record.derived};
    }
    case LayerPolicy::keep:
      break;
  }
  return {own.saved, own.derived};
}

void LayerRecords::for_each_tensor(std::size_t layer, const RecordVisitor& visit) {
  const Record record = record_of(layer);
  blocks_[layer]->for_each_tensor(record.saved, record.derived, visit);
}

std::vector<RecordTensor> LayerRecords::tensors_of(std::size_t layer) {
  std::vector<RecordTensor> list;
  for_each_tensor(layer, [&list](const RecordTensor& part) { list.push_back(part); });
  return list;
}

// The copies go on by themselves; exchanges between ranks want to be called meanwhile.
void LayerRecords::wait_for(std::size_t layer, const Pass& pass) {
  const Profile::Scope scope(device_->profile(), Part::spill);
  const auto number = static_cast<std::int64_t>(layer);
  while (!options_.store->wait_for(number, poll_seconds)) pass.poll();
  device_->profile().note_wait(copy_numbers_[layer]);
}

void LayerRecords::note_copy(std::size_t layer, std::string_view kind_of_file, double bytes) {
  Profile& profile = device_->profile();
  if (!profile.keeps_work()) return;
  const Profile::Scope scope(profile, Part::spill);
  copy_numbers_[layer] =
      profile.note({.kind = options_.store->is_in_memory() ? spill_copy : kind_of_file,
                    .is_exchange = true,
                    .bytes = bytes});
}

LayerRecords::Record LayerRecords::begin_forward(std::size_t layer, const Pass& pass) {
  if (options_.policy_of(layer) == LayerPolicy::spill && spill_index(layer) >= pool_.size())
    wait_for(spilled_layers_[spill_index(layer) - pool_.size()], pass);
  return record_of(layer);
}

void LayerRecords::end_forward(std::size_t layer, bool keeps) {
  const Record record = record_of(layer);
  if (blocks_[layer]->has_experts()) routes_[layer] = record.saved.moe->route;
  if (!keeps || options_.policy_of(layer) != LayerPolicy::spill || !moves(layer)) return;
  const std::vector<RecordTensor> tensors = tensors_of(layer);
  const double bytes = bytes_in_use(tensors);
  bytes_spilled_ += 2 * static_cast<double>(device_->profile().times()) * bytes;
  note_copy(layer, spill_write, bytes);
  options_.store->start_write(static_cast<std::int64_t>(layer), tensors);
}

LayerRecords::Record LayerRecords::begin_backward(std::size_t layer, const Pass& pass) {
  if (options_.policy_of(layer) == LayerPolicy::spill && moves(layer)) wait_for(layer, pass);
  return record_of(layer);
}

void LayerRecords::end_backward(std::size_t layer) {
  if (options_.policy_of(layer) != LayerPolicy::spill || spill_index(layer) < pool_.size()) return;
  const std::size_t next = spilled_layers_[spill_index(layer) - pool_.size()];
  Record record = record_of(next);
  if (blocks_[next]->has_experts())
    static_cast<RouteCounts&>(record.saved.moe->route) = routes_[next];
  const std::vector<RecordTensor> tensors = tensors_of(next);
  note_copy(next, spill_read, bytes_in_use(tensors));
  options_.store->start_read(static_cast<std::int64_t>(next), tensors);
}

}  // namespace switchyard
