#include "experts/expert_bank.hpp"

#include <algorithm>

#include "kernels/host_copy.hpp"
#include "kernels/swiglu.hpp"
#include "tensor/error.hpp"

namespace switchyard {

using kernels::PackedWeight;
using kernels::RowBlock;
using kernels::UnitBlock;

namespace {

// Blocks of rows whose products are not summed over rows may cut an expert there.
constexpr std::int64_t row_step = 64;

// The weights of a block's experts.
std::span<const PackedWeight> of(std::span<const PackedWeight> weights, const RowBlock& rows) {
  return weights.subspan(static_cast<std::size_t>(rows.first_group),
                         static_cast<std::size_t>(rows.num_groups));
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
    spec.slice = Slice::of(0, bank.local_experts);
  } else {
    expect(bank.local_experts.size() == 1, "one network in a dense feed-forward layer");
    spec.global_shape = {out_features, in_features};
  }
  return spec;
}

}  // namespace

BankScratch::BankScratch(Device& device, std::int64_t max_rows, std::int64_t num_experts,
                         std::int64_t intermediate, DType compute, RowCapacity* capacity,
                         const BankUnits& units)
    : block_rows_(kernels::block_rows(device)),
      chunk_rows_(std::max(block_rows_, min_chunk_rows)),
      block_offsets_(device, Purpose::workspace, DType::i32, {num_experts + 1}),
      chunk_offsets_(device, Purpose::workspace, DType::i32, {num_experts + 1}),
      units_(units) {
  add_units(device, num_experts);
  const bool follows_rows = block_rows_ == kernels::all_rows && capacity != nullptr;
  const auto allocate = [&](Tensor& buffer, std::int64_t rows, std::int64_t cols) {
    const Shape shape{std::min(rows, max_rows), cols};
    buffer = follows_rows ? Tensor::growable(device, Purpose::workspace, compute, shape)
                          : Tensor(device, Purpose::workspace, compute, shape);
    if (follows_rows) capacity->add(buffer);
  };
  allocate(gate_up_, block_rows_, 2 * intermediate);
  allocate(act_, chunk_rows_, intermediate);
  allocate(d_act_, block_rows_, intermediate);
  allocate(d_gate_up_, chunk_rows_, 2 * intermediate);
}

void BankScratch::add_units(Device& device, std::int64_t num_experts) {
  if (units_.number == 0) return;
  const Shape shape{num_experts * units_.number + 1};
  unit_block_offsets_ = Tensor(device, Purpose::workspace, DType::i32, shape);
  chunk_unit_offsets_ = Tensor(device, Purpose::workspace, DType::i32, shape);
  if (units_.rows == 0) return;
  whole_unit_offsets_ = Tensor(device, Purpose::workspace, DType::i32, shape);
  kernels::write_from_host<std::int32_t>(whole_unit_offsets_, [&](std::span<std::int32_t> begins) {
    std::int64_t row = 0;
    for (std::int32_t& begin : begins) {
      begin = static_cast<std::int32_t>(row);
      row += units_.rows;
    }
  });
}

ExpertBank::ExpertBank(ParameterStore& store, const BankSpec& spec)
    : spec_(spec),
      gate_up_(store.add(weight_spec(spec, ".gate_up.weight", 2 * spec.intermediate, spec.hidden,
                                     spec.initial_std))),
      down_(store.add(
          weight_spec(spec, ".down.weight", spec.hidden, spec.intermediate, spec.output_std))) {
  Device& device = store.device();
  for (std::int64_t e = 0; e < num_local_experts(); ++e) {
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
  for (std::int64_t e = 0; e < num_local_experts(); ++e) {
    gate_up_weights_[static_cast<std::size_t>(e)].pack(gate_up[e]);
    down_weights_[static_cast<std::size_t>(e)].pack(down[e]);
  }
}

TensorView ExpertBank::gate_up_block(const TensorView& kept, std::int64_t begin, std::int64_t end,
                                     const BankScratch& scratch) {
  return kept.device != nullptr ? kept.slice_rows(begin, end)
                                : scratch.gate_up_->slice_rows(0, end - begin);
}

void ExpertBank::forward(const TensorView& x, const TensorView& offsets, const TensorView& gate_up,
                         const TensorView& y, BankScratch& scratch, const Pass& pass) const {
  const auto run_block = [&](const RowBlock& rows) {
    const TensorView act = scratch.act_->slice_rows(0, rows.end - rows.begin);
    const TensorView block = gate_up_block(gate_up, rows.begin, rows.end, scratch);
    kernels::grouped_linear_forward(x.slice_rows(rows.begin, rows.end), of(gate_up_weights_, rows),
                                    rows.offsets, block);
    kernels::swiglu_forward(block, act);
    kernels::grouped_linear_forward(act, of(down_weights_, rows), rows.offsets,
                                    y.slice_rows(rows.begin, rows.end));
    pass.poll();
  };
  kernels::for_each_row_block(*x.device, offsets, x.rows(), num_local_experts(),
                              scratch.block_rows_, row_step, scratch.block_offsets_, run_block);
}

void ExpertBank::backward(const TensorView& dy, const TensorView& x, const TensorView& offsets,
                          const TensorView& unit_offsets, const TensorView& gate_up,
                          const TensorView& dx, BankScratch& scratch, const Pass& pass) const {
  const auto run_chunk = [&](const UnitBlock& chunk) {
    const auto rows_of = [&](const TensorView& whole) {
      return whole.device == nullptr ? whole
                                     : whole.slice_rows(chunk.groups.begin, chunk.groups.end);
    };
    backward_chunk(chunk, rows_of(dy), rows_of(x), rows_of(gate_up), rows_of(dx), scratch, pass);
  };
  for_each_chunk(x, offsets, unit_offsets, scratch, run_chunk);
  pass.gradient_ready(down_);
  pass.gradient_ready(gate_up_);
}

void ExpertBank::for_each_chunk(const TensorView& x, const TensorView& offsets,
                                const TensorView& unit_offsets, BankScratch& scratch,
                                const std::function<void(const UnitBlock&)>& visit) const {
  const std::int64_t num_experts = num_local_experts();
  if (!down_.gradient_sum().is_exact()) {
    kernels::for_each_row_block(*x.device, offsets, x.rows(), num_experts, scratch.chunk_rows_,
                                kernels::gradient_chunk_rows, scratch.chunk_offsets_,
                                [&](const RowBlock& chunk) {
                                  visit({chunk, chunk.offsets});
                                });
    return;
  }
  if (num_experts == 0) return;
  const bool is_whole = unit_offsets.device == nullptr;
  const TensorView by_unit =
      is_whole ? scratch.whole_unit_offsets_->slice_rows(0, x.rows() / scratch.units_.rows + 1)
               : unit_offsets;
  const std::int64_t num_units = by_unit.numel() - 1;
  kernels::for_each_row_block(
      *x.device, by_unit, x.rows(), num_units, scratch.chunk_rows_, kernels::term_rows,
      scratch.unit_block_offsets_, [&](const RowBlock& chunk) {
        visit(kernels::by_group(chunk, num_units / num_experts, num_experts, scratch.chunk_offsets_,
                                scratch.chunk_unit_offsets_));
      });
}

void ExpertBank::backward_chunk(const UnitBlock& chunk_by_unit, const TensorView& dy,
                                const TensorView& x, const TensorView& gate_up,
                                const TensorView& dx, BankScratch& scratch,
                                const Pass& pass) const {
  const RowBlock& chunk = chunk_by_unit.groups;
  const std::span<const PackedWeight> gate_up_weights = of(gate_up_weights_, chunk);
  const std::span<const PackedWeight> down_weights = of(down_weights_, chunk);
  const TensorView act = scratch.act_->slice_rows(0, dy.rows());
  const TensorView d_gate_up = scratch.d_gate_up_->slice_rows(0, dy.rows());
  const auto run_block = [&](const RowBlock& rows) {
    const auto rows_of = [&](const TensorView& whole) {
      return whole.slice_rows(rows.begin, rows.end);
    };
    const TensorView d_act = scratch.d_act_->slice_rows(0, rows.end - rows.begin);
    const TensorView d_gate_up_block = rows_of(d_gate_up);
    const TensorView block = gate_up_block(gate_up, rows.begin, rows.end, scratch);
    if (gate_up.device == nullptr)
      kernels::grouped_linear_forward(rows_of(x), of(gate_up_weights, rows), rows.offsets, block);
    kernels::grouped_linear_backward_input(rows_of(dy), of(down_weights, rows), rows.offsets,
                                           d_act);
    kernels::swiglu_backward(d_act, block, d_gate_up_block, rows_of(act));
    kernels::grouped_linear_backward_input(d_gate_up_block, of(gate_up_weights, rows), rows.offsets,
                                           rows_of(dx));
    pass.poll();
  };
  kernels::for_each_row_block(*x.device, chunk.offsets, dy.rows(), chunk.num_groups,
                              scratch.block_rows_, row_step, scratch.block_offsets_, run_block);
  const auto gradient_of = [&](const Parameter& parameter) {
    return parameter.gradient_sum().at(
        by_expert(parameter.gradient())
            .slice_rows(chunk.first_group, chunk.first_group + chunk.num_groups));
  };
  kernels::grouped_linear_backward_weight(dy, act, chunk_by_unit.units, gradient_of(down_));
  pass.poll();
  kernels::grouped_linear_backward_weight(d_gate_up, x, chunk_by_unit.units, gradient_of(gate_up_));
  pass.poll();
}

}  // namespace switchyard
