#include "experts/expert_bank.hpp"

#include <algorithm>

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/swiglu.hpp"
#include "tensor/error.hpp"

namespace switchyard {

using kernels::PackedWeight;
using kernels::RowBlock;
using kernels::UnitBlock;

namespace {

// Blocks of rows whose products are not summed over rows may cut an expert there.
constexpr std::int64_t row_step = 64;

// The weights of a block's experts, if its first group would be `first_expert`.
std::span<const PackedWeight> of(std::span<const PackedWeight> weights, const RowBlock& rows,
                                 std::int64_t first_expert) {
  return weights.subspan(static_cast<std::size_t>(first_expert + rows.first_group),
                         static_cast<std::size_t>(rows.num_groups));
}

// Of a tensor that may be none.
TensorView rows_between(const TensorView& whole, std::int64_t begin, std::int64_t end) {
  return whole.device == nullptr ? whole : whole.slice_rows(begin, end);
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
    spec.shared = bank.shared;
    spec.moves = bank.moves;
  } else {
    expect(bank.local_experts.size() == 1, "one network in a dense feed-forward layer");
    spec.global_shape = {out_features, in_features};
  }
  return spec;
}

// Starts at zero, does not decay.
ParameterSpec bias_spec(const BankSpec& bank, const char* name, std::int64_t width) {
  ParameterSpec spec = weight_spec(bank, name, width, 1, 0);
  if (bank.num_experts > 0)
    spec.global_shape = {bank.num_experts, width};
  else
    spec.global_shape = {width};
  spec.decay = false;
  spec.initial = Initial::zeros;
  return spec;
}

// One number for all rows.
TensorView in_all_rows(const Tensor& number, std::int64_t num_rows) {
  TensorView rows = number;
  rows.shape = {num_rows, 1};
  rows.row_stride = 0;
  return rows;
}

}  // namespace

BankScratch::BankScratch(Device& device, std::int64_t max_rows, std::int64_t num_experts,
                         std::int64_t intermediate, DType compute, RowCapacity* capacity,
                         const BankUnits& units, bool delays_weights, bool has_bias)
    : block_rows_(kernels::block_rows(device)),
      chunk_rows_(std::max(block_rows_, min_chunk_rows)),
      block_offsets_(device, Purpose::workspace, DType::i32, {num_experts + 1}),
      chunk_offsets_(device, Purpose::workspace, DType::i32, {num_experts + 1}),
      units_(units) {
  add_units(device, num_experts);
  const auto allocate = [&](Tensor& buffer, std::int64_t rows, std::int64_t cols) {
    const Shape shape{std::min(rows, max_rows), cols};
    const bool follows_rows = rows == kernels::all_rows && capacity != nullptr;
    buffer = follows_rows ? Tensor::growable(device, Purpose::workspace, compute, shape)
                          : Tensor(device, Purpose::workspace, compute, shape);
    if (follows_rows) capacity->add(buffer);
  };
  const std::int64_t inner_rows = delays_weights ? kernels::all_rows : chunk_rows_;
  allocate(gate_up_, block_rows_, 2 * intermediate);
  allocate(act_, inner_rows, intermediate);
  allocate(d_act_, block_rows_, intermediate);
  allocate(d_gate_up_, inner_rows, 2 * intermediate);
  if (!has_bias) return;
  allocate(ones_, chunk_rows_, 1);
  half_ = Tensor(device, Purpose::workspace, compute, {1, 1});
  const auto fill = [this]<class T>(T half) {
    kernels::write_from_host<T>(half_, [half](std::span<T> value) { value.front() = half; });
  };
  compute == DType::f32 ? fill(0.5f) : fill(to_bf16(0.5f));
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
  if (!spec.has_bias) return;
  gate_up_bias_.emplace(store, bias_spec(spec, ".gate_up.bias", 2 * spec.intermediate),
                        spec.compute);
  down_bias_.emplace(store, bias_spec(spec, ".down.bias", spec.hidden), spec.compute);
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
  if (gate_up_bias_) gate_up_bias_->pack_weights();
  if (down_bias_) down_bias_->pack_weights();
}

TensorView ExpertBank::gate_up_block(const TensorView& kept, std::int64_t begin, std::int64_t end,
                                     const BankScratch& scratch) {
  return kept.device != nullptr ? kept.slice_rows(begin, end)
                                : scratch.gate_up_->slice_rows(0, end - begin);
}

ExpertBank::Inner ExpertBank::inner_rows(const BankScratch& scratch, std::int64_t first_row,
                                         std::int64_t num_rows) {
  return Inner{scratch.act_, scratch.d_gate_up_}.rows(first_row, first_row + num_rows);
}

void ExpertBank::activate(const TensorView& gate_up, const TensorView& act) const {
  if (spec_.clamp)
    kernels::clamped_swiglu_forward(gate_up, *spec_.clamp, act);
  else
    kernels::swiglu_forward(gate_up, act);
}

void ExpertBank::forward(const TensorView& x, const TensorView& offsets, const TensorView& gate_up,
                         const TensorView& y, BankScratch& scratch, const Pass& pass) const {
  forward(all_experts(offsets, {}), x, gate_up, y, scratch, pass);
}

void ExpertBank::forward(const BankRows& rows, const TensorView& x, const TensorView& gate_up,
                         const TensorView& y, BankScratch& scratch, const Pass& pass) const {
  const auto run_block = [&](const RowBlock& block) {
    const TensorView act = scratch.act_->slice_rows(0, block.end - block.begin);
    const TensorView products = gate_up_block(gate_up, block.begin, block.end, scratch);
    kernels::grouped_linear_forward(x.slice_rows(block.begin, block.end),
                                    of(gate_up_weights_, block, rows.first_expert), block.offsets,
                                    products);
    if (gate_up_bias_) gate_up_bias_->add_to(products, block, rows.first_expert);
    activate(products, act);
    const TensorView out = y.slice_rows(block.begin, block.end);
    kernels::grouped_linear_forward(act, of(down_weights_, block, rows.first_expert), block.offsets,
                                    out);
    if (down_bias_) down_bias_->add_to(out, block, rows.first_expert);
    pass.poll();
  };
  kernels::for_each_row_block(*x.device, rows.offsets, x.rows(), rows.num_experts,
                              scratch.block_rows_, row_step, scratch.block_offsets_, run_block);
}

void ExpertBank::backward(const TensorView& dy, const TensorView& x, const TensorView& offsets,
                          const TensorView& unit_offsets, const TensorView& gate_up,
                          const TensorView& dx, BankScratch& scratch, const Pass& pass) const {
  backward_part(all_experts(offsets, unit_offsets), dy, x, gate_up, dx, scratch, pass);
  report_gradients(pass);
}

void ExpertBank::backward_part(const BankRows& rows, const TensorView& dy, const TensorView& x,
                               const TensorView& gate_up, const TensorView& dx,
                               BankScratch& scratch, const Pass& pass) const {
  for_each_chunk(rows, x, scratch, [&](const UnitBlock& chunk) {
    const std::int64_t begin = chunk.groups.begin, end = chunk.groups.end;
    const TensorView dy_rows = dy.slice_rows(begin, end), x_rows = x.slice_rows(begin, end);
    const Inner inner = inner_rows(scratch, 0, end - begin);
    input_of_chunk(chunk.groups, rows.first_expert, dy_rows, x_rows,
                   rows_between(gate_up, begin, end), dx.slice_rows(begin, end), inner, scratch,
                   pass);
    weights_of_chunk(chunk, rows.first_expert, dy_rows, x_rows, inner, scratch, pass);
  });
}

void ExpertBank::backward_input(const BankRows& rows, std::int64_t first_row, const TensorView& dy,
                                const TensorView& x, const TensorView& gate_up,
                                const TensorView& dx, BankScratch& scratch,
                                const Pass& pass) const {
  if (x.rows() == 0) return;
  input_of_chunk({0, x.rows(), 0, rows.num_experts, rows.offsets}, rows.first_expert, dy, x,
                 gate_up, dx, inner_rows(scratch, first_row, x.rows()), scratch, pass);
}

void ExpertBank::backward_weights(const BankRows& rows, const TensorView& dy, const TensorView& x,
                                  BankScratch& scratch, const Pass& pass) const {
  for_each_chunk(rows, x, scratch, [&](const UnitBlock& chunk) {
    const std::int64_t begin = chunk.groups.begin, end = chunk.groups.end;
    weights_of_chunk(chunk, rows.first_expert, dy.slice_rows(begin, end), x.slice_rows(begin, end),
                     inner_rows(scratch, begin, end - begin), scratch, pass);
  });
}

void ExpertBank::report_gradients(const Pass& pass) const {
  if (down_bias_) down_bias_->report_gradient(pass);
  if (gate_up_bias_) gate_up_bias_->report_gradient(pass);
  pass.gradient_ready(down_);
  pass.gradient_ready(gate_up_);
}

void ExpertBank::for_each_chunk(const BankRows& rows, const TensorView& x, BankScratch& scratch,
                                const std::function<void(const UnitBlock&)>& visit) const {
  if (!down_.gradient_sum().is_exact()) {
    kernels::for_each_row_block(*x.device, rows.offsets, x.rows(), rows.num_experts,
                                scratch.chunk_rows_, kernels::gradient_chunk_rows,
                                scratch.chunk_offsets_, [&](const RowBlock& chunk) {
                                  visit({chunk, chunk.offsets});
                                });
    return;
  }
  if (rows.num_experts == 0) return;
  const bool is_whole = rows.unit_offsets.device == nullptr;
  const TensorView by_unit =
      is_whole ? scratch.whole_unit_offsets_->slice_rows(0, x.rows() / scratch.units_.rows + 1)
               : rows.unit_offsets;
  const std::int64_t num_units = by_unit.numel() - 1;
  kernels::for_each_row_block(
      *x.device, by_unit, x.rows(), num_units, scratch.chunk_rows_, kernels::term_rows,
      scratch.unit_block_offsets_, [&](const RowBlock& chunk) {
        visit(kernels::by_group(chunk, num_units / rows.num_experts, rows.num_experts,
                                scratch.chunk_offsets_, scratch.chunk_unit_offsets_));
      });
}

void ExpertBank::input_of_chunk(const RowBlock& chunk, std::int64_t first_expert,
                                const TensorView& dy, const TensorView& x,
                                const TensorView& gate_up, const TensorView& dx, const Inner& inner,
                                BankScratch& scratch, const Pass& pass) const {
  const std::span<const PackedWeight> gate_up_weights = of(gate_up_weights_, chunk, first_expert);
  const std::span<const PackedWeight> down_weights = of(down_weights_, chunk, first_expert);
  const auto run_block = [&](const RowBlock& rows) {
    const auto rows_of = [&](const TensorView& whole) {
      return whole.slice_rows(rows.begin, rows.end);
    };
    const TensorView d_act = scratch.d_act_->slice_rows(0, rows.end - rows.begin);
    const auto [act, d_gate_up] = inner.rows(rows.begin, rows.end);
    const TensorView block = gate_up_block(gate_up, rows.begin, rows.end, scratch);
    if (gate_up.device == nullptr) {
      kernels::grouped_linear_forward(rows_of(x), of(gate_up_weights, rows, 0), rows.offsets,
                                      block);
      if (gate_up_bias_) gate_up_bias_->add_to(block, rows, first_expert + chunk.first_group);
    }
    kernels::grouped_linear_backward_input(rows_of(dy), of(down_weights, rows, 0), rows.offsets,
                                           d_act);
    if (spec_.clamp)
      kernels::clamped_swiglu_backward(d_act, block, *spec_.clamp, d_gate_up, act);
    else
      kernels::swiglu_backward(d_act, block, d_gate_up, act);
    kernels::grouped_linear_backward_input(d_gate_up, of(gate_up_weights, rows, 0), rows.offsets,
                                           rows_of(dx));
    pass.poll();
  };
  kernels::for_each_row_block(*x.device, chunk.offsets, dy.rows(), chunk.num_groups,
                              scratch.block_rows_, row_step, scratch.block_offsets_, run_block);
}

void ExpertBank::weights_of_chunk(const UnitBlock& chunk, std::int64_t first_expert,
                                  const TensorView& dy, const TensorView& x, const Inner& inner,
                                  const BankScratch& scratch, const Pass& pass) const {
  const auto gradient_of = [&](const Parameter& parameter) {
    const std::int64_t first = first_expert + chunk.groups.first_group;
    return parameter.gradient_sum().at(
        by_expert(parameter.gradient()).slice_rows(first, first + chunk.groups.num_groups));
  };
  kernels::grouped_linear_backward_weight(dy, inner.act, chunk.units, gradient_of(down_));
  pass.poll();
  kernels::grouped_linear_backward_weight(inner.d_gate_up, x, chunk.units, gradient_of(gate_up_));
  pass.poll();
  if (!down_bias_ || dy.rows() == 0) return;
  // Written anew, since the buffer may have grown.
  const TensorView ones = scratch.ones_->slice_rows(0, dy.rows());
  const TensorView half = in_all_rows(scratch.half_, dy.rows());
  kernels::add(half, half, ones);
  down_bias_->backward(dy, chunk, first_expert, ones);
  gate_up_bias_->backward(inner.d_gate_up, chunk, first_expert, ones);
}

}  // namespace switchyard
