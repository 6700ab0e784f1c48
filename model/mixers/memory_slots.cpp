#include "model/mixers/memory_slots.hpp"

#include <cmath>

#include "kernels/attention/attention_merge.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/parameter_spec.hpp"
#include "model/rope_spec.hpp"

namespace switchyard {

namespace {

// Deviations of the paper's, so that slots begin with scores and values of ordinary size.
ParameterSpec slots_spec(std::string name, const ModelConfig& model, std::int64_t num_slots,
                         std::int64_t one_over) {
  return weight_spec(std::move(name), {num_slots, model.key_cols()},
                     "model.mixer, model.num_kv_heads, model.head_dim",
                     1 / std::sqrt(static_cast<double>(one_over)));
}

}  // namespace

MemorySlots::MemorySlots(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                         std::int64_t num_slots, DType compute)
    : device_(store.device()),
      model_(model),
      num_slots_(num_slots),
      compute_(compute),
      keys_(store.add(
          slots_spec(prefix + ".slots.key.weight", model, num_slots, model.effective_head_dim()))),
      values_(store.add(slots_spec(prefix + ".slots.value.weight", model, num_slots, num_slots))),
      packed_keys_(store.device(), Purpose::parameter, compute, keys_.spec().global_shape),
      packed_values_(store.device(), Purpose::parameter, compute, values_.spec().global_shape) {}

MemorySlots::Scratch MemorySlots::make_scratch(std::int64_t num_tokens, bool training) const {
  const auto make = [&](DType type, const Shape& dims) {
    return Tensor(device_, Purpose::workspace, type, dims);
  };
  const Shape queries = {num_tokens, model_.query_cols()};
  Scratch scratch;
  if (model_.turns_positions()) scratch.q = make(compute_, queries);
  scratch.out = make(DType::f32, queries);
  scratch.lse = make(DType::f32, {num_tokens, model_.num_heads});
  scratch.first = make(DType::i32, {num_tokens});
  scratch.end = make(DType::i32, {num_tokens});
  scratch.workspace =
      make(DType::u8,
           {kernels::attention_workspace_bytes(shape(num_tokens), compute_, device_.target())});
  if (!training) return scratch;
  scratch.delta = make(DType::f32, {num_tokens, model_.num_heads});
  scratch.dq = make(compute_, queries);
  scratch.dk = make(DType::f32, keys_.spec().global_shape);
  scratch.dv = make(DType::f32, values_.spec().global_shape);
  return scratch;
}

void MemorySlots::pack_weights() {
  kernels::copy(keys_.value(), packed_keys_);
  kernels::copy(values_.value(), packed_values_);
}

kernels::AttentionShape MemorySlots::shape(std::int64_t num_tokens) const {
  return {.num_sequences = 1,
          .query_length = num_tokens,
          .key_length = num_slots_,
          .num_heads = model_.num_heads,
          .num_kv_heads = model_.num_kv_heads,
          .head_dim = model_.effective_head_dim(),
          .scale = attention_scale(model_)};
}

// As queries that come after all slots.
kernels::KeyRanges MemorySlots::all_slots(const Scratch& scratch, std::int64_t num_tokens) const {
  return kernels::causal_ranges({.num_sequences = 1,
                                 .query_length = num_tokens,
                                 .key_length = num_slots_,
                                 .query_offset = num_slots_},
                                scratch.first->slice_rows(0, num_tokens),
                                scratch.end->slice_rows(0, num_tokens));
}

TensorView MemorySlots::unturned(const TensorView& q, const Scratch& scratch,
                                 const LayerContext& context) const {
  if (!model_.turns_positions()) return q;
  kernels::copy(q, scratch.q);
  kernels::rope(scratch.q, context.rope, context.pass.rotary_positions, model_.effective_head_dim(),
                kernels::Rotation::backward);
  return scratch.q;
}

void MemorySlots::forward(const TensorView& q, const TensorView& out, const TensorView& lse,
                          const Scratch& scratch, const LayerContext& context) const {
  kernels::attention_forward(shape(q.rows()), unturned(q, scratch, context), packed_keys_,
                             packed_values_, all_slots(scratch, q.rows()), scratch.out, scratch.lse,
                             kernels::Merge::replace, scratch.workspace);
  kernels::attention_merge(scratch.out, scratch.lse, model_.effective_head_dim(), out, lse);
}

// The queries that slots see were turned back, which is linear: their gradient is turned forward.
void MemorySlots::backward(const TensorView& q, const TensorView& out, const TensorView& lse,
                           const TensorView& dout, const TensorView& dq, const Scratch& scratch,
                           const LayerContext& context) const {
  kernels::attention_delta(out, dout, model_.effective_head_dim(), scratch.delta);
  kernels::attention_backward(shape(q.rows()), unturned(q, scratch, context), packed_keys_,
                              packed_values_, all_slots(scratch, q.rows()), lse, scratch.delta,
                              dout, {.dq = scratch.dq, .dk = scratch.dk, .dv = scratch.dv},
                              scratch.workspace);
  if (model_.turns_positions())
    kernels::rope(scratch.dq, context.rope, context.pass.rotary_positions,
                  model_.effective_head_dim(), kernels::Rotation::forward);
  kernels::add(dq, scratch.dq, dq);
  kernels::add(keys_.gradient(), scratch.dk, keys_.gradient());
  kernels::add(values_.gradient(), scratch.dv, values_.gradient());
  context.gradient_ready(keys_);
  context.gradient_ready(values_);
}

}  // namespace switchyard
