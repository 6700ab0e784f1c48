#include "model/attention_layer.hpp"

#include <cmath>

#include "kernels/elementwise.hpp"
#include "kernels/threads.hpp"
#include "model/parameter_spec.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

std::int64_t query_cols(const ModelConfig& model) {
  return model.num_heads * model.effective_head_dim();
}

std::int64_t key_cols(const ModelConfig& model) {
  return model.num_kv_heads * model.effective_head_dim();
}

std::int64_t qkv_cols(const ModelConfig& model) {
  return query_cols(model) + 2 * key_cols(model);
}

kernels::AttentionShape attention_shape(const ModelConfig& model, std::int64_t num_sequences,
                                        std::int64_t query_length, std::int64_t key_length) {
  kernels::AttentionShape shape;
  shape.num_sequences = num_sequences;
  shape.query_length = query_length;
  shape.key_length = key_length;
  shape.num_heads = model.num_heads;
  shape.num_kv_heads = model.num_kv_heads;
  shape.head_dim = model.effective_head_dim();
  shape.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  return shape;
}

Tensor make_workspace(Device& device, const kernels::AttentionShape& shape, DType compute) {
  return {device,
          Purpose::workspace,
          DType::u8,
          {kernels::attention_workspace_bytes(shape, compute, kernels::num_threads())}};
}

}  // namespace

AttentionLayer::Scratch::Scratch(Device& device, const ModelConfig& model, DType compute,
                                 std::int64_t num_sequences, std::int64_t sequence_length)
    : rope(device, sequence_length, model.effective_head_dim(), {.base = model.rope_base}),
      first_keys(device, Purpose::workspace, DType::i32, {num_sequences * sequence_length}),
      end_keys(device, Purpose::workspace, DType::i32, {num_sequences * sequence_length}),
      key_ranges(kernels::causal_ranges({.num_sequences = num_sequences,
                                         .query_length = sequence_length,
                                         .key_length = sequence_length},
                                        first_keys, end_keys)),
      delta(device, Purpose::workspace, DType::f32,
            {num_sequences * sequence_length, model.num_heads}),
      dqkv(device, Purpose::workspace, compute, {num_sequences * sequence_length, qkv_cols(model)}),
      dout(device, Purpose::workspace, compute,
           {num_sequences * sequence_length, query_cols(model)}),
      workspace(make_workspace(
          device, attention_shape(model, num_sequences, sequence_length, sequence_length),
          compute)) {}

AttentionLayer::Cache::Cache(Device& device, const ModelConfig& model, DType compute,
                             std::int64_t max_length)
    : keys(device, Purpose::activation, compute, {max_length, key_cols(model)}),
      values(device, Purpose::activation, compute, {max_length, key_cols(model)}) {}

AttentionLayer::ExtendScratch::ExtendScratch(Device& device, const ModelConfig& model,
                                             DType compute, std::int64_t num_tokens,
                                             std::int64_t max_length)
    : qkv(device, Purpose::workspace, compute, {num_tokens, qkv_cols(model)}),
      out(device, Purpose::workspace, compute, {num_tokens, query_cols(model)}),
      lse(device, Purpose::workspace, DType::f32, {num_tokens, model.num_heads}),
      first_keys(device, Purpose::workspace, DType::i32, {num_tokens}),
      end_keys(device, Purpose::workspace, DType::i32, {num_tokens}),
      workspace(
          make_workspace(device, attention_shape(model, 1, num_tokens, max_length), compute)) {}

AttentionLayer::AttentionLayer(ParameterStore& store, const std::string& prefix,
                               const ModelConfig& model, DType compute)
    : device_(store.device()),
      model_(model),
      compute_(compute),
      qkv_(store.add(
          weight_spec(prefix + ".qkv.weight", {qkv_cols(model), model.hidden}, model.initial_std))),
      output_(store.add(weight_spec(prefix + ".output.weight", {model.hidden, query_cols(model)},
                                    residual_std(model)))),
      packed_qkv_(store.device(), qkv_cols(model), model.hidden, compute),
      packed_output_(store.device(), model.hidden, query_cols(model), compute) {
  expect(model.num_kv_heads > 0 && model.num_heads % model.num_kv_heads == 0,
         "num_kv_heads divides num_heads");
  expect(model.effective_head_dim() > 0 && model.effective_head_dim() % 2 == 0,
         "head_dim is even: rotary positions turn pairs");
}

AttentionLayer::Saved AttentionLayer::make_saved(std::int64_t num_tokens) const {
  Saved saved;
  saved.out = Tensor(device_, Purpose::activation, compute_, {num_tokens, query_cols(model_)});
  saved.lse = Tensor(device_, Purpose::activation, DType::f32, {num_tokens, model_.num_heads});
  return saved;
}

AttentionLayer::Derived AttentionLayer::make_derived(std::int64_t num_tokens) const {
  return {Tensor(device_, Purpose::activation, compute_, {num_tokens, qkv_cols(model_)})};
}

void AttentionLayer::pack_weights() {
  packed_qkv_.pack(qkv_.value());
  packed_output_.pack(output_.value());
}

AttentionLayer::Heads AttentionLayer::heads_of(const TensorView& qkv) const {
  const std::int64_t k_begin = query_cols(model_);
  const std::int64_t v_begin = k_begin + key_cols(model_);
  return {qkv.slice_cols(0, k_begin), qkv.slice_cols(k_begin, v_begin),
          qkv.slice_cols(v_begin, qkv_cols(model_)), qkv.slice_cols(0, v_begin)};
}

void AttentionLayer::project(const TensorView& x, Derived& derived, const Scratch& scratch,
                             const Pass& pass) const {
  kernels::linear_forward(x, packed_qkv_, derived.qkv);
  kernels::rope(heads_of(derived.qkv).rotated, scratch.rope, pass.rotary_positions,
                model_.effective_head_dim(), kernels::Rotation::forward);
}

void AttentionLayer::rebuild(const TensorView& x, const TensorView& y, const Saved& saved,
                             Derived& derived, Scratch& scratch, const Pass& pass) const {
  project(x, derived, scratch, pass);
  pass.poll();
  kernels::linear_forward(saved.out, packed_output_, y);
}

void AttentionLayer::forward(const TensorView& x, const TensorView& y, Saved& saved,
                             Derived& derived, Scratch& scratch, const Pass& pass) const {
  const std::int64_t length = pass.sequence_length;
  const Heads heads = heads_of(derived.qkv);
  project(x, derived, scratch, pass);
  kernels::attention_forward(attention_shape(model_, x.rows() / length, length, length), heads.q,
                             heads.k, heads.v, scratch.key_ranges, saved.out, saved.lse,
                             kernels::Merge::replace, scratch.workspace);
  pass.poll();
  kernels::linear_forward(saved.out, packed_output_, y);
}

void AttentionLayer::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                              const Saved& saved, const Derived& derived, Scratch& scratch,
                              const Pass& pass) const {
  const std::int64_t length = pass.sequence_length;
  const Heads heads = heads_of(derived.qkv);
  const Heads gradients = heads_of(scratch.dqkv);
  kernels::linear_backward_weight(dy, saved.out, output_.gradient());
  pass.gradient_ready(output_);
  kernels::linear_backward_input(dy, packed_output_, scratch.dout);
  pass.poll();
  kernels::attention_delta(saved.out, scratch.dout, model_.effective_head_dim(), scratch.delta);
  kernels::attention_backward(attention_shape(model_, x.rows() / length, length, length), heads.q,
                              heads.k, heads.v, scratch.key_ranges, saved.lse, scratch.delta,
                              scratch.dout, {gradients.q, gradients.k, gradients.v},
                              scratch.workspace, [&pass] { pass.poll(); });
  kernels::rope(gradients.rotated, scratch.rope, pass.rotary_positions, model_.effective_head_dim(),
                kernels::Rotation::backward);
  pass.poll();
  kernels::linear_backward_weight(scratch.dqkv, x, qkv_.gradient());
  pass.gradient_ready(qkv_);
  kernels::linear_backward_input(scratch.dqkv, packed_qkv_, dx);
}

void AttentionLayer::extend(const TensorView& x, const TensorView& y, std::int64_t num_cached,
                            Cache& cache, const kernels::RopeTable& rope, ExtendScratch& scratch,
                            const Pass& pass) const {
  const std::int64_t num_tokens = x.rows();
  const std::int64_t length = num_cached + num_tokens;
  const Heads heads = heads_of(scratch.qkv);
  kernels::linear_forward(x, packed_qkv_, scratch.qkv);
  kernels::rope(heads.rotated, rope, pass.rotary_positions, model_.effective_head_dim(),
                kernels::Rotation::forward);
  kernels::copy(heads.k, cache.keys->slice_rows(num_cached, length));
  kernels::copy(heads.v, cache.values->slice_rows(num_cached, length));
  const kernels::KeyRanges key_ranges =
      kernels::causal_ranges({.num_sequences = 1,
                              .query_length = num_tokens,
                              .key_length = length,
                              .query_offset = num_cached},
                             scratch.first_keys, scratch.end_keys);
  kernels::attention_forward(attention_shape(model_, 1, num_tokens, length), heads.q,
                             cache.keys->slice_rows(0, length), cache.values->slice_rows(0, length),
                             key_ranges, scratch.out, scratch.lse, kernels::Merge::replace,
                             scratch.workspace);
  kernels::linear_forward(scratch.out, packed_output_, y);
}

}  // namespace switchyard
