#include "experts/expert_bank.hpp"

#include <algorithm>

#include "kernels/swiglu.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

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

// Calls visit(begin, end) for consecutive pieces of at most `size` rows.
template <class Visit>
void for_blocks(std::int64_t begin, std::int64_t end, std::int64_t size, Visit&& visit) {
  for (std::int64_t at = begin; at < end; at += size) visit(at, std::min(at + size, end));
}

}  // namespace

BankScratch::BankScratch(Device& device, std::int64_t max_rows, std::int64_t intermediate,
                         DType compute)
    // A thread's piece of a product has at least 64 rows: of a single row block, four threads at
    // most would have work.
    : block_rows_(std::min(kernels::row_block * kernels::num_threads_of(device), chunk_rows)) {
  const std::int64_t chunk = std::min(chunk_rows, max_rows);
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
  for (std::int64_t e = 0; e < spec.num_local_experts; ++e)
    weights_.push_back({{device, 2 * spec.intermediate, spec.hidden, spec.compute},
                        {device, spec.hidden, spec.intermediate, spec.compute}});
}

TensorView ExpertBank::of_expert(const TensorView& whole, std::int64_t expert) const {
  return spec_.num_experts > 0 ? whole[expert] : whole;
}

void ExpertBank::pack_weights() {
  for (std::size_t e = 0; e < weights_.size(); ++e) {
    const auto expert = static_cast<std::int64_t>(e);
    weights_[e].gate_up.pack(of_expert(gate_up_.value(), expert));
    weights_[e].down.pack(of_expert(down_.value(), expert));
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
  expect(expert_offsets.size() == weights_.size() + 1, "a row range for each expert of the bank");
  expect(x.rows() == expert_offsets.back(), "row ranges that cover all rows");
  for (std::size_t e = 0; e < weights_.size(); ++e)
    for_blocks(expert_offsets[e], expert_offsets[e + 1], scratch.block_rows_,
               [&](std::int64_t begin, std::int64_t end) {
                 const TensorView act = scratch.act_->slice_rows(0, end - begin);
                 const TensorView block = gate_up_block(gate_up, begin, end, scratch);
                 kernels::linear_forward(x.slice_rows(begin, end), weights_[e].gate_up, block);
                 kernels::swiglu_forward(block, act);
                 kernels::linear_forward(act, weights_[e].down, y.slice_rows(begin, end));
                 pass.poll();
               });
}

void ExpertBank::backward(const TensorView& dy, const TensorView& x,
                          std::span<const std::int64_t> expert_offsets, const TensorView& gate_up,
                          const TensorView& dx, BankScratch& scratch, const Pass& pass) const {
  expect(expert_offsets.size() == weights_.size() + 1, "a row range for each expert of the bank");
  expect(x.rows() == expert_offsets.back(), "row ranges that cover all rows");
  for (std::size_t e = 0; e < weights_.size(); ++e)
    for_blocks(expert_offsets[e], expert_offsets[e + 1], BankScratch::chunk_rows,
               [&](std::int64_t begin, std::int64_t end) {
                 backward_chunk(
                     static_cast<std::int64_t>(e), dy.slice_rows(begin, end),
                     x.slice_rows(begin, end),
                     gate_up.device == nullptr ? gate_up : gate_up.slice_rows(begin, end),
                     dx.slice_rows(begin, end), scratch, pass);
               });
  pass.gradient_ready(down_);
  pass.gradient_ready(gate_up_);
}

void ExpertBank::backward_chunk(std::int64_t expert, const TensorView& dy, const TensorView& x,
                                const TensorView& gate_up, const TensorView& dx,
                                BankScratch& scratch, const Pass& pass) const {
  const Weights& weights = weights_[static_cast<std::size_t>(expert)];
  const std::int64_t num_rows = dy.rows();
  const TensorView act = scratch.act_->slice_rows(0, num_rows);
  const TensorView d_gate_up = scratch.d_gate_up_->slice_rows(0, num_rows);
  for_blocks(0, num_rows, scratch.block_rows_, [&](std::int64_t begin, std::int64_t end) {
    const TensorView d_act = scratch.d_act_->slice_rows(0, end - begin);
    const TensorView d_gate_up_block = d_gate_up.slice_rows(begin, end);
    const TensorView block = gate_up_block(gate_up, begin, end, scratch);
    if (gate_up.device == nullptr)
      kernels::linear_forward(x.slice_rows(begin, end), weights.gate_up, block);
    kernels::linear_backward_input(dy.slice_rows(begin, end), weights.down, d_act);
    kernels::swiglu_backward(d_act, block, d_gate_up_block, act.slice_rows(begin, end));
    kernels::linear_backward_input(d_gate_up_block, weights.gate_up, dx.slice_rows(begin, end));
    pass.poll();
  });
  kernels::linear_backward_weight(dy, act, of_expert(down_.gradient(), expert));
  pass.poll();
  kernels::linear_backward_weight(d_gate_up, x, of_expert(gate_up_.gradient(), expert));
  pass.poll();
}

}  // namespace switchyard
