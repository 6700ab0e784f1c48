#include "experts/expert_bank.hpp"

#include <algorithm>

#include "kernels/swiglu.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"

namespace switchyard {

using kernels::PackedWeight;
using kernels::RowBlock;

namespace {

// Blocks of rows whose products are not summed over rows may cut an expert there.
constexpr std::int64_t row_step = 64;

// The weights of a block's experts.
std::span<const PackedWeight> of(const std::vector<PackedWeight>& weights, const RowBlock& rows) {
  return std::span(weights).subspan(rows.first_group, rows.num_groups());
}

ParameterSpec weight_spec(const BankSpec& bank, const char* name, std::int64_t out_features,
                          std::int64_t in_features, float std) {
  ParameterSpec spec;
  spec.name = bank.prefix + name;
  spec.keys = bank.keys;
  spec.replicas = bank.replicas;
  spec.initial_std = std;
  if (bank.num_experts > 0) {
    spec.global_shape = {bank.num_experts, out_features, in_features};
    spec.slice = Slice(0, {{bank.first_expert, bank.first_expert + bank.num_local_experts}});
  } else {
    expect(bank.num_local_experts == 1, "one network in a dense feed-forward layer");
    spec.global_shape = {out_features, in_features};
  }
  return spec;
}

}  // namespace

BankScratch::BankScratch(Device& device, std::int64_t max_rows, std::int64_t intermediate,
                         DType compute)
    : block_rows_(kernels::block_rows(kernels::num_threads_of(device))),
      chunk_rows_(std::max(block_rows_, min_chunk_rows)) {
  const std::int64_t chunk = std::min(chunk_rows_, max_rows);
  const std::int64_t block = std::min(block_rows_, max_rows);
  gate_up_ = Tensor(device, Purpose::workspace, compute, {block, 2 * intermediate});
  act_ = Tensor(device, Purpose::workspace, compute, {chunk, intermediate});
  d_act_ = Tensor(device, Purpose::workspace, compute, {block, intermediate});
  d_gate_up_ = Tensor(device, Purpose::workspace, compute, {chunk, 2 * intermediate});
}

ExpertBank::ExpertBank(ParameterStore& store, const BankSpec& spec)
    : spec_(spec),
      gate_up_(store.add(weight_spec(spec, ".gate_up.weight", 2 * spec.intermediate, spec.hidden,
                                     spec.initial_std))),
      down_(store.add(
          weight_spec(spec, ".down.weight", spec.hidden, spec.intermediate, spec.output_std))) {
  Device& device = store.device();
  for (std::int64_t e = 0; e < spec.num_local_experts; ++e) {
    gate_up_weights_.emplace_back(device, 2 * spec.intermediate, spec.hidden, spec.compute);
    down_weights_.emplace_back(device, spec.hidden, spec.intermediate, spec.compute);
  }
  kernels::reserve_grouped_linear(device, 2 * spec.intermediate, spec.hidden, spec.compute);
  kernels::reserve_grouped_linear(device, spec.hidden, spec.intermediate, spec.compute);
}

TensorView ExpertBank::by_expert(const TensorView& whole) const {
  return spec_.num_experts > 0 ? whole : whole.reshape({1, whole.shape[0], whole.shape[1]});
}

void ExpertBank::pack_weights() {
  const TensorView gate_up = by_expert(gate_up_.value()), down = by_expert(down_.value());
  for (std::int64_t e = 0; e < spec_.num_local_experts; ++e) {
    gate_up_weights_[static_cast<std::size_t>(e)].pack(gate_up[e]);
    down_weights_[static_cast<std::size_t>(e)].pack(down[e]);
  }
}

TensorView ExpertBank::gate_up_block(const TensorView& kept, std::int64_t begin, std::int64_t end,
                                     const BankScratch& scratch) {
  return kept.device != nullptr ? kept.slice_rows(begin, end)
                                : scratch.gate_up_->slice_rows(0, end - begin);
}

void ExpertBank::forward(const TensorView& x, std::span<const std::int64_t> expert_offsets,
                         const TensorView& gate_up, const TensorView& y, BankScratch& scratch,
                         const Pass& pass) const {
  expect_ranges(x, expert_offsets);
  const std::int64_t step = std::min(row_step, scratch.block_rows_);
  for (const RowBlock& rows : kernels::row_blocks(expert_offsets, scratch.block_rows_, step)) {
    const TensorView act = scratch.act_->slice_rows(0, rows.end - rows.begin);
    const TensorView block = gate_up_block(gate_up, rows.begin, rows.end, scratch);
    kernels::grouped_linear_forward(x.slice_rows(rows.begin, rows.end), of(gate_up_weights_, rows),
                                    rows.offsets, block);
    kernels::swiglu_forward(block, act);
    kernels::grouped_linear_forward(act, of(down_weights_, rows), rows.offsets,
                                    y.slice_rows(rows.begin, rows.end));
    pass.poll();
  }
}

void ExpertBank::backward(const TensorView& dy, const TensorView& x,
                          std::span<const std::int64_t> expert_offsets, const TensorView& gate_up,
                          const TensorView& dx, BankScratch& scratch, const Pass& pass) const {
  expect_ranges(x, expert_offsets);
  for (const RowBlock& chunk :
       kernels::row_blocks(expert_offsets, scratch.chunk_rows_, kernels::gradient_chunk_rows)) {
    const auto rows_of = [&](const TensorView& whole) {
      return whole.device == nullptr ? whole : whole.slice_rows(chunk.begin, chunk.end);
    };
    backward_chunk(chunk, rows_of(dy), rows_of(x), rows_of(gate_up), rows_of(dx), scratch, pass);
  }
  pass.gradient_ready(down_);
  pass.gradient_ready(gate_up_);
}

void ExpertBank::backward_chunk(const RowBlock& chunk, const TensorView& dy, const TensorView& x,
                                const TensorView& gate_up, const TensorView& dx,
                                BankScratch& scratch, const Pass& pass) const {
  const std::span<const PackedWeight> gate_up_weights = of(gate_up_weights_, chunk);
  const std::span<const PackedWeight> down_weights = of(down_weights_, chunk);
  const TensorView act = scratch.act_->slice_rows(0, dy.rows());
  const TensorView d_gate_up = scratch.d_gate_up_->slice_rows(0, dy.rows());
  const std::int64_t step = std::min(row_step, scratch.block_rows_);
  for (const RowBlock& rows : kernels::row_blocks(chunk.offsets, scratch.block_rows_, step)) {
    const auto rows_of = [&](const TensorView& whole) {
      return whole.slice_rows(rows.begin, rows.end);
    };
    const auto weights_of = [&](std::span<const PackedWeight> weights) {
      return weights.subspan(rows.first_group, rows.num_groups());
    };
    const TensorView d_act = scratch.d_act_->slice_rows(0, rows.end - rows.begin);
    const TensorView d_gate_up_block = rows_of(d_gate_up);
    const TensorView block = gate_up_block(gate_up, rows.begin, rows.end, scratch);
    if (gate_up.device == nullptr)
      kernels::grouped_linear_forward(rows_of(x), weights_of(gate_up_weights), rows.offsets, block);
    kernels::grouped_linear_backward_input(rows_of(dy), weights_of(down_weights), rows.offsets,
                                           d_act);
    kernels::swiglu_backward(d_act, block, d_gate_up_block, rows_of(act));
    kernels::grouped_linear_backward_input(d_gate_up_block, weights_of(gate_up_weights),
                                           rows.offsets, rows_of(dx));
    pass.poll();
  }
  const auto gradient_of = [&](const Parameter& parameter) {
    const auto first = static_cast<std::int64_t>(chunk.first_group);
    return by_expert(parameter.gradient())
        .slice_rows(first, first + static_cast<std::int64_t>(chunk.num_groups()));
  };
  kernels::grouped_linear_backward_weight(dy, act, chunk.offsets, gradient_of(down_));
  pass.poll();
  kernels::grouped_linear_backward_weight(d_gate_up, x, chunk.offsets, gradient_of(gate_up_));
  pass.poll();
}

void ExpertBank::expect_ranges(const TensorView& x,
                               std::span<const std::int64_t> expert_offsets) const {
  expect(std::ssize(expert_offsets) == spec_.num_local_experts + 1,
         "a row range for each expert of the bank");
  expect(x.rows() == expert_offsets.back(), "the row ranges cover the rows");
}

}  // namespace switchyard
