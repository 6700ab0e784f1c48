#include "model/mixers/latent_attention.hpp"

#include <algorithm>

#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "model/parameter_spec.hpp"
#include "model/rope_spec.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Of the norms of latents: DeepSeek's, whatever the other norms have.
constexpr float latent_epsilon = 1e-6f;

constexpr const char* shape_keys = "model.latent, model.num_heads, model.hidden";

std::int64_t key_width(const ModelConfig& model) {  // of the cache: L + R
  return model.latent.kv_rank + model.latent.rope_dim;
}

std::int64_t padded_cols(const ModelConfig& model) {
  return model.num_heads * model.effective_head_dim();
}

std::int64_t value_cols(const ModelConfig& model) {
  return model.num_heads * model.latent.value_dim;
}

std::int64_t up_cols(const ModelConfig& model) {
  return model.num_heads * (model.latent.nope_dim + model.latent.value_dim);
}

ParameterSpec latent_norm_spec(const std::string& name, std::int64_t width) {
  ParameterSpec spec = norm_spec(name, width);
  spec.keys = shape_keys;
  return spec;
}

// The absorbed form: all heads see the same keys, and their values are the keys.
kernels::AttentionShape absorbed_shape(const ModelConfig& model, std::int64_t num_tokens,
                                       std::int64_t length) {
  kernels::AttentionShape shape;
  shape.num_sequences = 1;
  shape.query_length = num_tokens;
  shape.key_length = length;
  shape.num_heads = model.num_heads;
  shape.num_kv_heads = 1;
  shape.head_dim = key_width(model);
  shape.scale = attention_scale(model);
  return shape;
}

// Columns [begin, end) of head h, of heads that are `width` wide.
TensorView part_of_head(const TensorView& rows, std::int64_t head, std::int64_t width,
                        std::int64_t begin, std::int64_t end) {
  return rows.slice_cols(head * width + begin, head * width + end);
}

// Copies the first `from_width` or `to_width` columns of every head, whichever is less; what is
// wider there becomes zero.
void copy_heads(const TensorView& from, std::int64_t from_width, const TensorView& to,
                std::int64_t to_width, std::int64_t num_heads) {
  const std::int64_t both = std::min(from_width, to_width);
  for (std::int64_t head = 0; head < num_heads; ++head) {
    kernels::copy(part_of_head(from, head, from_width, 0, both),
                  part_of_head(to, head, to_width, 0, both));
    if (to_width > both) kernels::fill_zero(part_of_head(to, head, to_width, both, to_width));
  }
}

}  // namespace

void LatentAttentionMixer::Saved::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "out", out);
  visit_tensor(visit, "lse", lse);
}

void LatentAttentionMixer::Derived::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "query_projected", query.projected);
  visit_tensor(visit, "query_rstd", query.rstd);
  visit_tensor(visit, "query_normed", query.normed);
  visit_tensor(visit, "kv_projected", kv.projected);
  visit_tensor(visit, "kv_rstd", kv.rstd);
  visit_tensor(visit, "kv_normed", kv.normed);
  visit_tensor(visit, "q", q);
  visit_tensor(visit, "k", k);
  visit_tensor(visit, "v", v);
  visit_tensor(visit, "output", output);
}

LatentAttentionMixer::Scratch::Scratch(Device& device, const Mesh& mesh, const ModelConfig& model,
                                       DType compute, std::int64_t num_sequences,
                                       const SequenceSplit& split)
    : attention(device, mesh,
                {.num_sequences = num_sequences,
                 .num_heads = model.num_heads,
                 .num_kv_heads = model.num_heads,
                 .head_dim = model.effective_head_dim(),
                 .scale = attention_scale(model)},
                compute, split, std::vector<kernels::KeyPattern>{{}}) {
  const LatentConfig& latent = model.latent;
  const std::int64_t num_tokens = num_sequences * split.num_local(mesh.index(Axis::context));
  const auto rows = [&](std::int64_t width, DType dtype) {
    return Tensor(device, Purpose::workspace, dtype, {num_tokens, width});
  };
  heads = rows(up_cols(model), compute);
  for (Tensor* tensor : {&dq, &dk, &dv, &dout}) *tensor = rows(padded_cols(model), compute);
  d_output = rows(value_cols(model), compute);
  d_latent = rows(latent.kv_rank, compute);
  d_projected = rows(key_width(model), compute);
  if (latent.q_rank > 0) {
    d_query = rows(latent.q_rank, compute);
    d_query_projected = rows(latent.q_rank, compute);
  }
  key_sum = rows(latent.rope_dim, DType::f32);
  key_term = rows(latent.rope_dim, DType::f32);
  norm_workspace =
      Tensor(device, Purpose::workspace, DType::u8,
             {kernels::rms_norm_workspace_bytes(device, std::max(latent.kv_rank, latent.q_rank))});
}

void LatentAttentionMixer::Scratch::set_documents(kernels::DocumentStarts document_starts) {
  attention.begin(document_starts);
}

LatentAttentionMixer::Cache::Cache(Device& device, const LatentAttentionMixer& mixer,
                                   std::int64_t max_length)
    : rows(device, Purpose::activation, mixer.compute_, {max_length, key_width(mixer.model_)}),
      mixer_(mixer) {
  const LatentConfig& latent = mixer.model_.latent;
  for (std::int64_t head = 0; head < mixer.model_.num_heads; ++head) {
    key_weights.emplace_back(device, latent.nope_dim, latent.kv_rank, mixer.compute_);
    value_weights.emplace_back(device, latent.value_dim, latent.kv_rank, mixer.compute_, false);
  }
  clear();
}

void LatentAttentionMixer::Cache::clear() {
  const LatentConfig& latent = mixer_.model_.latent;
  std::int64_t row = 0;
  const auto next_rows = [&](std::int64_t number) {
    row += number;
    return mixer_.kv_up_.value().slice_rows(row - number, row);
  };
  for (std::size_t head = 0; head < key_weights.size(); ++head) {
    key_weights[head].pack(next_rows(latent.nope_dim));
    value_weights[head].pack(next_rows(latent.value_dim));
  }
}

LatentAttentionMixer::ExtendScratch::ExtendScratch(Device& device, const ModelConfig& model,
                                                   DType compute, std::int64_t num_tokens,
                                                   std::int64_t max_length) {
  const auto rows = [&](std::int64_t width, DType dtype) {
    return Tensor(device, Purpose::workspace, dtype, {num_tokens, width});
  };
  const auto numbers = [&](DType dtype) {
    return Tensor(device, Purpose::workspace, dtype, {num_tokens});
  };
  if (model.latent.q_rank > 0) {
    query_projected = rows(model.latent.q_rank, compute);
    query_normed = rows(model.latent.q_rank, compute);
    query_rstd = numbers(DType::f32);
  }
  projected = rows(key_width(model), compute);
  rstd = numbers(DType::f32);
  q = rows(padded_cols(model), compute);
  absorbed = rows(model.num_heads * key_width(model), compute);
  out = rows(model.num_heads * key_width(model), compute);
  output = rows(value_cols(model), compute);
  lse = rows(model.num_heads, DType::f32);
  first_keys = numbers(DType::i32);
  end_keys = numbers(DType::i32);
  workspace = Tensor(device, Purpose::workspace, DType::u8,
                     {kernels::attention_workspace_bytes(
                         absorbed_shape(model, num_tokens, max_length), compute, device.target())});
}

LatentAttentionMixer::LatentAttentionMixer(ParameterStore& store, const std::string& prefix,
                                           const ModelConfig& model, DType compute)
    : device_(store.device()),
      mesh_(store.mesh()),
      model_(model),
      compute_(compute),
      query_down_(model.latent.q_rank == 0
                      ? nullptr
                      : &store.add(weight_spec(prefix + ".query_down.weight",
                                               {model.latent.q_rank, model.hidden}, shape_keys,
                                               model.initial_std))),
      query_norm_(
          model.latent.q_rank == 0
              ? nullptr
              : &store.add(latent_norm_spec(prefix + ".query_norm.weight", model.latent.q_rank))),
      query_(store.add(weight_spec(
          prefix + (model.latent.q_rank > 0 ? ".query_up.weight" : ".query.weight"),
          {padded_cols(model), model.latent.q_rank > 0 ? model.latent.q_rank : model.hidden},
          shape_keys, model.initial_std))),
      kv_down_(store.add(weight_spec(prefix + ".kv_down.weight", {key_width(model), model.hidden},
                                     shape_keys, model.initial_std))),
      kv_norm_(store.add(latent_norm_spec(prefix + ".kv_norm.weight", model.latent.kv_rank))),
      kv_up_(store.add(weight_spec(prefix + ".kv_up.weight", {up_cols(model), model.latent.kv_rank},
                                   shape_keys, model.initial_std))),
      output_(store.add(weight_spec(prefix + ".output.weight", {model.hidden, value_cols(model)},
                                    shape_keys, residual_std(model)))),
      packed_query_(store.device(), padded_cols(model), query_.spec().global_shape[1], compute),
      packed_kv_down_(store.device(), key_width(model), model.hidden, compute),
      packed_kv_up_(store.device(), up_cols(model), model.latent.kv_rank, compute),
      packed_output_(store.device(), model.hidden, value_cols(model), compute) {
  if (query_down_ != nullptr)
    packed_query_down_ =
        kernels::PackedWeight(store.device(), model.latent.q_rank, model.hidden, compute);
  expect(model.latent.rope_dim > 0 && model.latent.rope_dim % 2 == 0 &&
             model.latent.value_dim <= model.effective_head_dim(),
         "an even rope_dim, and values no wider than keys");
}

std::unique_ptr<MixerRecord> LatentAttentionMixer::make_saved(
    std::int64_t num_tokens, std::int64_t /*num_sequences*/) const {
  auto saved = std::make_unique<Saved>();
  saved->out = Tensor(device_, Purpose::activation, compute_, {num_tokens, padded_cols(model_)});
  saved->lse = Tensor(device_, Purpose::activation, DType::f32, {num_tokens, model_.num_heads});
  return saved;
}

std::unique_ptr<MixerRecord> LatentAttentionMixer::make_derived(
    std::int64_t num_tokens, std::int64_t /*num_sequences*/) const {
  const auto make_latent = [&](std::int64_t width, std::int64_t more) {
    Latent latent;
    latent.projected = Tensor(device_, Purpose::activation, compute_, {num_tokens, width + more});
    latent.rstd = Tensor(device_, Purpose::activation, DType::f32, {num_tokens});
    latent.normed = Tensor(device_, Purpose::activation, compute_, {num_tokens, width});
    return latent;
  };
  auto derived = std::make_unique<Derived>();
  if (query_down_ != nullptr) derived->query = make_latent(model_.latent.q_rank, 0);
  derived->kv = make_latent(model_.latent.kv_rank, model_.latent.rope_dim);
  for (Tensor* tensor : {&derived->q, &derived->k, &derived->v})
    *tensor = Tensor(device_, Purpose::activation, compute_, {num_tokens, padded_cols(model_)});
  derived->output =
      Tensor(device_, Purpose::activation, compute_, {num_tokens, value_cols(model_)});
  return derived;
}

std::unique_ptr<MixerScratch> LatentAttentionMixer::make_scratch(std::int64_t num_sequences,
                                                                 const SequenceSplit& split) const {
  return std::make_unique<Scratch>(device_, mesh_, model_, compute_, num_sequences, split);
}

std::unique_ptr<MixerCache> LatentAttentionMixer::make_cache(std::int64_t max_length,
                                                             std::int64_t /*max_new*/) const {
  return std::make_unique<Cache>(device_, *this, max_length);
}

std::unique_ptr<MixerScratch> LatentAttentionMixer::make_extend_scratch(
    std::int64_t num_tokens, std::int64_t max_length) const {
  return std::make_unique<ExtendScratch>(device_, model_, compute_, num_tokens, max_length);
}

void LatentAttentionMixer::pack_weights() {
  if (query_down_ != nullptr) packed_query_down_.pack(query_down_->value());
  packed_query_.pack(query_.value());
  packed_kv_down_.pack(kv_down_.value());
  packed_kv_up_.pack(kv_up_.value());
  packed_output_.pack(output_.value());
}

void LatentAttentionMixer::turn(const TensorView& x, kernels::Rotation rotation,
                                const LayerContext& context) const {
  kernels::rope(x, context.rope, context.pass.rotary_positions, model_.latent.rope_dim, rotation);
}

void LatentAttentionMixer::turn_queries(const TensorView& q, kernels::Rotation rotation,
                                        const LayerContext& context) const {
  const std::int64_t width = model_.effective_head_dim();
  for (std::int64_t head = 0; head < model_.num_heads; ++head)
    turn(part_of_head(q, head, width, model_.latent.nope_dim, width), rotation, context);
}

void LatentAttentionMixer::project_queries(const TensorView& x, const TensorView& projected,
                                           const TensorView& rstd, const TensorView& normed,
                                           const TensorView& q, const LayerContext& context) const {
  if (query_down_ != nullptr) {
    kernels::linear_forward(x, packed_query_down_, projected);
    kernels::rms_norm_forward(projected, query_norm_->value(), latent_epsilon, normed, rstd);
  }
  kernels::linear_forward(query_down_ != nullptr ? normed : x, packed_query_, q);
  turn_queries(q, kernels::Rotation::forward, context);
}

void LatentAttentionMixer::project(const TensorView& x, Derived& derived, Scratch& scratch,
                                   const LayerContext& context) const {
  const LatentConfig& latent = model_.latent;
  const std::int64_t width = model_.effective_head_dim();
  const std::int64_t up_width = latent.nope_dim + latent.value_dim;
  if (query_down_ != nullptr)
    project_queries(x, derived.query.projected, derived.query.rstd, derived.query.normed, derived.q,
                    context);
  else
    project_queries(x, {}, {}, {}, derived.q, context);
  kernels::linear_forward(x, packed_kv_down_, derived.kv.projected);
  kernels::rms_norm_forward(derived.kv.projected->slice_cols(0, latent.kv_rank), kv_norm_.value(),
                            latent_epsilon, derived.kv.normed, derived.kv.rstd);
  context.poll();
  kernels::linear_forward(derived.kv.normed, packed_kv_up_, scratch.heads);
  const TensorView shared = part_of_head(derived.k, 0, width, latent.nope_dim, width);
  kernels::copy(derived.kv.projected->slice_cols(latent.kv_rank, key_width(model_)), shared);
  turn(shared, kernels::Rotation::forward, context);
  for (std::int64_t head = 0; head < model_.num_heads; ++head) {
    kernels::copy(part_of_head(scratch.heads, head, up_width, 0, latent.nope_dim),
                  part_of_head(derived.k, head, width, 0, latent.nope_dim));
    if (head > 0)
      kernels::copy(shared, part_of_head(derived.k, head, width, latent.nope_dim, width));
    const TensorView value = part_of_head(derived.v, head, width, 0, width);
    kernels::copy(part_of_head(scratch.heads, head, up_width, latent.nope_dim, up_width),
                  value.slice_cols(0, latent.value_dim));
    if (latent.value_dim < width) kernels::fill_zero(value.slice_cols(latent.value_dim, width));
  }
}

void LatentAttentionMixer::write_output(const TensorView& out, const TensorView& output,
                                        const TensorView& y) const {
  copy_heads(out, model_.effective_head_dim(), output, model_.latent.value_dim, model_.num_heads);
  kernels::linear_forward(output, packed_output_, y);
}

void LatentAttentionMixer::forward(const TensorView& x, const TensorView& y,
                                   MixerRecord& saved_record, MixerRecord& derived_record,
                                   const LayerContext& context) const {
  auto& saved = dynamic_cast<Saved&>(saved_record);
  auto& derived = dynamic_cast<Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  project(x, derived, scratch, context);
  scratch.attention.forward(0, {}, derived.q, derived.k, derived.v, saved.out, saved.lse,
                            [&context] { context.poll(); });
  context.poll();
  write_output(saved.out, derived.output, y);
}

void LatentAttentionMixer::rebuild(const TensorView& x, const TensorView& y,
                                   const MixerRecord& saved_record, MixerRecord& derived_record,
                                   const LayerContext& context) const {
  auto& derived = dynamic_cast<Derived&>(derived_record);
  project(x, derived, dynamic_cast<Scratch&>(context.scratch), context);
  context.poll();
  write_output(dynamic_cast<const Saved&>(saved_record).out, derived.output, y);
}

void LatentAttentionMixer::queries_backward(const TensorView& x, const TensorView& dx,
                                            const Derived& derived, Scratch& scratch,
                                            const LayerContext& context) const {
  turn_queries(scratch.dq, kernels::Rotation::backward, context);
  kernels::linear_backward_weight(
      scratch.dq, query_down_ != nullptr ? derived.query.normed.view() : x, query_.gradient_sum());
  context.gradient_ready(query_);
  if (query_down_ == nullptr) {
    kernels::linear_backward_input(scratch.dq, packed_query_, dx);
    return;
  }
  kernels::linear_backward_input(scratch.dq, packed_query_, scratch.d_query);
  kernels::rms_norm_backward(scratch.d_query, derived.query.projected, query_norm_->value(),
                             derived.query.rstd, {}, scratch.d_query_projected,
                             query_norm_->gradient_sum(), scratch.norm_workspace);
  context.gradient_ready(*query_norm_);
  kernels::linear_backward_weight(scratch.d_query_projected, x, query_down_->gradient_sum());
  context.gradient_ready(*query_down_);
  kernels::linear_backward_input(scratch.d_query_projected, packed_query_down_, dx);
}

void LatentAttentionMixer::keys_backward(const TensorView& x, const TensorView& dx,
                                         const Derived& derived, Scratch& scratch,
                                         const LayerContext& context) const {
  const LatentConfig& latent = model_.latent;
  const std::int64_t width = model_.effective_head_dim();
  const std::int64_t up_width = latent.nope_dim + latent.value_dim;
  // Of the shared key the sum over heads, in fp32.
  kernels::fill_zero(scratch.key_sum);
  for (std::int64_t head = 0; head < model_.num_heads; ++head) {
    kernels::copy(part_of_head(scratch.dk, head, width, 0, latent.nope_dim),
                  part_of_head(scratch.heads, head, up_width, 0, latent.nope_dim));
    kernels::copy(part_of_head(scratch.dv, head, width, 0, latent.value_dim),
                  part_of_head(scratch.heads, head, up_width, latent.nope_dim, up_width));
    kernels::copy(part_of_head(scratch.dk, head, width, latent.nope_dim, width), scratch.key_term);
    kernels::add(scratch.key_sum, scratch.key_term, scratch.key_sum);
  }
  const TensorView d_key = scratch.d_projected->slice_cols(latent.kv_rank, key_width(model_));
  kernels::copy(scratch.key_sum, d_key);
  turn(d_key, kernels::Rotation::backward, context);
  kernels::linear_backward_weight(scratch.heads, derived.kv.normed, kv_up_.gradient_sum());
  context.gradient_ready(kv_up_);
  kernels::linear_backward_input(scratch.heads, packed_kv_up_, scratch.d_latent);
  kernels::rms_norm_backward(scratch.d_latent, derived.kv.projected->slice_cols(0, latent.kv_rank),
                             kv_norm_.value(), derived.kv.rstd, {},
                             scratch.d_projected->slice_cols(0, latent.kv_rank),
                             kv_norm_.gradient_sum(), scratch.norm_workspace);
  context.gradient_ready(kv_norm_);
  kernels::linear_backward_weight(scratch.d_projected, x, kv_down_.gradient_sum());
  context.gradient_ready(kv_down_);
  kernels::linear_backward_input(scratch.d_projected, packed_kv_down_, dx,
                                 kernels::Accumulate::yes);
}

void LatentAttentionMixer::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                                    const MixerRecord& saved_record,
                                    const MixerRecord& derived_record,
                                    const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  const auto& derived = dynamic_cast<const Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  kernels::linear_backward_weight(dy, derived.output, output_.gradient_sum());
  context.gradient_ready(output_);
  kernels::linear_backward_input(dy, packed_output_, scratch.d_output);
  copy_heads(scratch.d_output, model_.latent.value_dim, scratch.dout, model_.effective_head_dim(),
             model_.num_heads);
  context.poll();
  scratch.attention.backward(0, {}, TensorView{}, derived.q, derived.k, derived.v, saved.out,
                             saved.lse, scratch.dout, scratch.dq, scratch.dk, scratch.dv,
                             [&context] { context.poll(); });
  queries_backward(x, dx, derived, scratch, context);
  context.poll();
  keys_backward(x, dx, derived, scratch, context);
}

void LatentAttentionMixer::extend(const TensorView& x, const TensorView& y, std::int64_t num_cached,
                                  MixerCache& any_cache, const LayerContext& context) const {
  auto& cache = dynamic_cast<Cache&>(any_cache);
  auto& scratch = dynamic_cast<ExtendScratch&>(context.scratch);
  const LatentConfig& latent = model_.latent;
  const std::int64_t width = model_.effective_head_dim(), row_width = key_width(model_);
  const std::int64_t num_tokens = x.rows(), length = num_cached + num_tokens;
  if (query_down_ != nullptr)
    project_queries(x, scratch.query_projected, scratch.query_rstd, scratch.query_normed, scratch.q,
                    context);
  else
    project_queries(x, {}, {}, {}, scratch.q, context);
  const TensorView rows = cache.rows->slice_rows(num_cached, length);
  kernels::linear_forward(x, packed_kv_down_, scratch.projected);
  kernels::rms_norm_forward(scratch.projected->slice_cols(0, latent.kv_rank), kv_norm_.value(),
                            latent_epsilon, rows.slice_cols(0, latent.kv_rank), scratch.rstd);
  const TensorView key = rows.slice_cols(latent.kv_rank, row_width);
  kernels::copy(scratch.projected->slice_cols(latent.kv_rank, row_width), key);
  turn(key, kernels::Rotation::forward, context);
  for (std::int64_t head = 0; head < model_.num_heads; ++head) {
    const TensorView absorbed = part_of_head(scratch.absorbed, head, row_width, 0, row_width);
    kernels::linear_backward_input(part_of_head(scratch.q, head, width, 0, latent.nope_dim),
                                   cache.key_weights[static_cast<std::size_t>(head)],
                                   absorbed.slice_cols(0, latent.kv_rank));
    kernels::copy(part_of_head(scratch.q, head, width, latent.nope_dim, width),
                  absorbed.slice_cols(latent.kv_rank, row_width));
  }
  const kernels::KeyRanges key_ranges =
      kernels::causal_ranges({.num_sequences = 1,
                              .query_length = num_tokens,
                              .key_length = length,
                              .query_offset = num_cached,
                              .window = 0},
                             scratch.first_keys, scratch.end_keys);
  const TensorView keys = cache.rows->slice_rows(0, length);
  kernels::attention_forward(absorbed_shape(model_, num_tokens, length), scratch.absorbed, keys,
                             keys, key_ranges, scratch.out, scratch.lse, kernels::Merge::replace,
                             scratch.workspace);
  for (std::int64_t head = 0; head < model_.num_heads; ++head)
    kernels::linear_forward(
        part_of_head(scratch.out, head, row_width, 0, latent.kv_rank),
        cache.value_weights[static_cast<std::size_t>(head)],
        part_of_head(scratch.output, head, latent.value_dim, 0, latent.value_dim));
  kernels::linear_forward(scratch.output, packed_output_, y);
}

}  // namespace switchyard
