#include "model/mixers/attention.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/rows/clip.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/parameter_spec.hpp"
#include "model/rope_spec.hpp"
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

// Of each head: 2^{-8 h / A} for h = 1 ... A if A is a power of two; else those of the power below,
// then every second one of the power above (Press et al. 2022, as their code and Hugging Face's
// Bloom have it). None unless positions are told so.
std::vector<float> alibi_slopes(const ModelConfig& model) {
  std::vector<float> slopes;
  if (model.position.kind != PositionKind::alibi) return slopes;
  const auto power =
      static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(model.num_heads)));
  const auto slope = [](std::int64_t h, std::int64_t of) {
    return static_cast<float>(std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(of)));
  };
  for (std::int64_t h = 1; h <= power; ++h) slopes.push_back(slope(h, power));
  for (std::int64_t h = 1; std::ssize(slopes) < model.num_heads; h += 2)
    slopes.push_back(slope(h, 2 * power));
  return slopes;
}

// Of what a head learns by distance.
std::int64_t num_bias_parameters(const ModelConfig& model, const MixerConfig& attention) {
  if (attention.ramp > 0) return 1;
  return model.position.kind == PositionKind::relative ? model.position.buckets : 0;
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
  shape.scale = attention_scale(model);
  return shape;
}

AttentionSizes attention_sizes(const ModelConfig& model, const MixerConfig& attention,
                               std::int64_t num_sequences) {
  return {.num_sequences = num_sequences,
          .num_heads = model.num_heads,
          .num_kv_heads = model.num_kv_heads,
          .head_dim = model.effective_head_dim(),
          .scale = attention_scale(model),
          .slopes = alibi_slopes(model),
          .bias_parameters = attention.ramp > 0 ? AdaptiveSpan::parameters(attention)
                                                : RelativeBias::buckets(model),
          .num_bias_parameters = num_bias_parameters(model, attention)};
}

// Of the model's layers, each once.
std::vector<kernels::KeyPattern> patterns_of(const ModelConfig& model) {
  std::vector<kernels::KeyPattern> patterns;
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer) {
    if (!model.mixer_of_layer(layer).is_attention()) continue;
    const kernels::KeyPattern pattern = model.mixer_of_layer(layer).pattern();
    if (std::find(patterns.begin(), patterns.end(), pattern) == patterns.end())
      patterns.push_back(pattern);
  }
  return patterns;
}

Tensor make_workspace(Device& device, const kernels::AttentionShape& shape, DType compute) {
  return {device,
          Purpose::workspace,
          DType::u8,
          {kernels::attention_workspace_bytes(shape, compute, device.target())}};
}

// Keys of the configuration that decide the shapes of the weights.
constexpr const char* shape_keys =
    "model.num_heads, model.num_kv_heads, model.head_dim, model.hidden";

// Layers that share scratch: those of as many taps, distances and slots.
std::string kind_of(const MixerConfig& attention) {
  std::string kind = "attention";
  if (attention.conv > 0) kind += "_conv" + std::to_string(attention.conv);
  if (attention.ramp > 0) kind += "_span" + std::to_string(attention.window);
  if (attention.slots > 0) kind += "_slots" + std::to_string(attention.slots);
  return kind;
}

std::optional<RowBias> make_bias(ParameterStore& store, bool wanted, const std::string& name,
                                 std::int64_t width, DType compute) {
  if (!wanted) return std::nullopt;
  return std::optional<RowBias>(std::in_place, store, bias_spec(name, width, shape_keys), compute);
}

}  // namespace

void AttentionMixer::Saved::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "out", out);
  visit_tensor(visit, "lse", lse);
  if (!halo.empty()) visit_tensor(visit, "halo", halo);
}

void AttentionMixer::Derived::for_each_tensor(const RecordVisitor& visit) {
  if (!projected.empty()) visit_tensor(visit, "projected", projected);
  visit_tensor(visit, "qkv", qkv);
  norm.for_each_tensor(visit);
  if (!inside.empty()) visit_tensor(visit, "inside", inside);
}

AttentionMixer::Scratch::Scratch(Device& device, const Mesh& mesh, const ModelConfig& model,
                                 const MixerConfig& mixer, DType compute,
                                 std::int64_t num_sequences, const SequenceSplit& split)
    : attention(device, mesh, attention_sizes(model, mixer, num_sequences), compute, split,
                patterns_of(model)) {
  const std::int64_t num_tokens = num_sequences * split.num_local(mesh.index(Axis::context));
  dqkv = Tensor(device, Purpose::workspace, compute, {num_tokens, qkv_cols(model)});
  dout = Tensor(device, Purpose::workspace, compute, {num_tokens, query_cols(model)});
  if (const std::int64_t parameters = num_bias_parameters(model, mixer); parameters > 0) {
    d_bias =
        Tensor(device, Purpose::workspace, DType::f32, {num_tokens, model.num_heads * parameters});
    bias_ones = RowBias::make_ones(device, num_tokens, DType::f32);
  }
  if (model.qkv_bias || model.output_bias) ones = RowBias::make_ones(device, num_tokens, compute);
  if (mixer.conv > 0)
    conv.emplace(device, mesh, compute, num_sequences, split, qkv_cols(model), mixer.conv);
}

void AttentionMixer::Scratch::set_documents(kernels::DocumentStarts document_starts) {
  attention.begin(document_starts);
  if (conv) conv->document_starts.assign(document_starts.begin(), document_starts.end());
}

AttentionMixer::ExtendScratch::ExtendScratch(Device& device, const ModelConfig& model,
                                             const kernels::KeyPattern& pattern, std::int64_t conv,
                                             DType compute, std::int64_t num_tokens,
                                             std::int64_t max_length,
                                             const std::optional<QueryKeyNorm>& query_key_norm)
    : qkv(device, Purpose::workspace, compute, {num_tokens, qkv_cols(model)}),
      out(device, Purpose::workspace, compute, {num_tokens, query_cols(model)}),
      lse(device, Purpose::workspace, DType::f32, {num_tokens, model.num_heads}),
      first_keys(device, Purpose::workspace, DType::i32, {pattern.num_sets() * num_tokens}),
      end_keys(device, Purpose::workspace, DType::i32, {pattern.num_sets() * num_tokens}),
      workspace(
          make_workspace(device, attention_shape(model, 1, num_tokens, max_length), compute)) {
  if (query_key_norm) norm = query_key_norm->make_derived(num_tokens, compute, Purpose::workspace);
  if (conv == 0) return;
  projected = Tensor(device, Purpose::workspace, compute, {num_tokens, qkv_cols(model)});
  rows = Tensor(device, Purpose::workspace, compute, {conv - 1 + num_tokens, qkv_cols(model)});
}

AttentionMixer::AttentionMixer(ParameterStore& store, const std::string& prefix,
                               const ModelConfig& model, const MixerConfig& attention,
                               DType compute)
    : device_(store.device()),
      mesh_(store.mesh()),
      model_(model),
      pattern_(attention.pattern()),
      slopes_(alibi_slopes(model)),
      config_(attention),
      conv_width_(attention.conv),
      kind_(kind_of(attention)),
      compute_(compute),
      qkv_(store.add(weight_spec(prefix + ".qkv.weight", {qkv_cols(model), model.hidden},
                                 shape_keys, model.initial_std))),
      output_(store.add(weight_spec(prefix + ".output.weight", {model.hidden, query_cols(model)},
                                    shape_keys, residual_std(model)))),
      sinks_(attention.sinks == 0
                 ? nullptr
                 : &store.add(sink_spec(prefix + ".sinks", model.num_heads, attention.sinks))),
      qkv_bias_(make_bias(store, model.qkv_bias, prefix + ".qkv.bias", qkv_cols(model), compute)),
      output_bias_(
          make_bias(store, model.output_bias, prefix + ".output.bias", model.hidden, compute)),
      packed_qkv_(store.device(), qkv_cols(model), model.hidden, compute),
      packed_output_(store.device(), model.hidden, query_cols(model), compute) {
  expect(model.num_kv_heads > 0 && model.num_heads % model.num_kv_heads == 0,
         "a num_heads that is a multiple of num_kv_heads");
  expect(model.effective_head_dim() > 0 &&
             (!model.turns_positions() || model.effective_head_dim() % 2 == 0),
         "an even head_dim, as rotary positions turn pairs");
  if (conv_width_ > 0) conv_.emplace(store, prefix, qkv_cols(model), conv_width_, false);
  if (model.qk_norm != QkNorm::none) norm_.emplace(store, prefix, model);
  if (attention.ramp > 0)
    span_.emplace(store, prefix, model, attention);
  else if (model.position.kind == PositionKind::relative)
    relative_.emplace(store, prefix, model);
  if (attention.slots > 0) slots_.emplace(store, prefix, model, attention.slots, compute);
}

std::unique_ptr<MixerRecord> AttentionMixer::make_saved(std::int64_t num_tokens,
                                                        std::int64_t num_sequences) const {
  auto saved = std::make_unique<Saved>();
  if (conv_width_ > 1) saved->halo = conv_->make_halo(compute_, num_sequences);
  saved->out = Tensor(device_, Purpose::activation, compute_, {num_tokens, query_cols(model_)});
  saved->lse = Tensor(device_, Purpose::activation, DType::f32, {num_tokens, model_.num_heads});
  return saved;
}

std::unique_ptr<MixerRecord> AttentionMixer::make_derived(std::int64_t num_tokens,
                                                          std::int64_t /*num_sequences*/) const {
  auto derived = std::make_unique<Derived>();
  if (conv_)
    derived->projected =
        Tensor(device_, Purpose::activation, compute_, {num_tokens, qkv_cols(model_)});
  derived->qkv = Tensor(device_, Purpose::activation, compute_, {num_tokens, qkv_cols(model_)});
  if (norm_) derived->norm = norm_->make_derived(num_tokens, compute_, Purpose::activation);
  if (model_.clip_qkv > 0)
    derived->inside = Tensor(device_, Purpose::activation, DType::u8, derived->qkv->shape);
  return derived;
}

std::unique_ptr<MixerScratch> AttentionMixer::make_scratch(std::int64_t num_sequences,
                                                           const SequenceSplit& split) const {
  auto scratch =
      std::make_unique<Scratch>(device_, mesh_, model_, config_, compute_, num_sequences, split);
  if (slots_) scratch->slots = slots_->make_scratch(scratch->dqkv->rows(), true);
  if (norm_) {
    scratch->d_normed = Tensor(device_, Purpose::workspace, compute_,
                               {scratch->dqkv->rows(), query_cols(model_) + key_cols(model_)});
    scratch->norm_workspace = norm_->make_workspace();
  }
  return scratch;
}

std::unique_ptr<MixerCache> AttentionMixer::make_cache(std::int64_t max_length,
                                                       std::int64_t max_new_tokens) const {
  return std::make_unique<Cache>(device_, model_, pattern_, conv_width_, compute_, max_length,
                                 max_new_tokens);
}

std::unique_ptr<MixerScratch> AttentionMixer::make_extend_scratch(std::int64_t num_tokens,
                                                                  std::int64_t max_length) const {
  auto scratch = std::make_unique<ExtendScratch>(device_, model_, pattern_, conv_width_, compute_,
                                                 num_tokens, max_length, norm_);
  if (slots_) scratch->slots = slots_->make_scratch(num_tokens, false);
  return scratch;
}

void AttentionMixer::pack_weights() {
  packed_qkv_.pack(qkv_.value());
  packed_output_.pack(output_.value());
  if (qkv_bias_) qkv_bias_->pack_weights();
  if (output_bias_) output_bias_->pack_weights();
  if (relative_) relative_->pack_weights();
  if (span_) span_->pack_weights();
  if (slots_) slots_->pack_weights();
}

AttentionMixer::Heads AttentionMixer::heads_of(const TensorView& qkv) const {
  const std::int64_t k_begin = query_cols(model_);
  const std::int64_t v_begin = k_begin + key_cols(model_);
  return {qkv.slice_cols(0, k_begin), qkv.slice_cols(k_begin, v_begin),
          qkv.slice_cols(v_begin, qkv_cols(model_)), qkv.slice_cols(0, v_begin)};
}

void AttentionMixer::turn(const TensorView& rotated, kernels::Rotation rotation,
                          const LayerContext& context) const {
  if (!model_.turns_positions()) return;
  kernels::rope(rotated, context.rope, context.pass.rotary_positions, model_.effective_head_dim(),
                rotation);
}

kernels::DistanceBias AttentionMixer::bias() const {
  if (span_) return span_->bias();
  return relative_ ? relative_->bias() : kernels::DistanceBias{};
}

void AttentionMixer::project(const TensorView& x, const TensorView& projected) const {
  kernels::linear_forward(x, packed_qkv_, projected);
  if (qkv_bias_) qkv_bias_->add_to(projected);
}

void AttentionMixer::norm_and_turn(const TensorView& qkv, QueryKeyNorm::Derived& norm,
                                   const TensorView& inside, const LayerContext& context) const {
  const TensorView rotated = heads_of(qkv).rotated;
  if (norm_) norm_->forward(rotated, norm);
  if (model_.clip_qkv > 0) kernels::clip_forward(qkv, static_cast<float>(model_.clip_qkv), inside);
  turn(rotated, kernels::Rotation::forward, context);
}

void AttentionMixer::project_output(const TensorView& out, const TensorView& y) const {
  kernels::linear_forward(out, packed_output_, y);
  if (output_bias_) output_bias_->add_to(y);
}

void AttentionMixer::forward(const TensorView& x, const TensorView& y, MixerRecord& saved_record,
                             MixerRecord& derived_record, const LayerContext& context) const {
  auto& saved = dynamic_cast<Saved&>(saved_record);
  auto& derived = dynamic_cast<Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  const Heads heads = heads_of(derived.qkv);
  project(x, projected_in(derived));
  if (conv_) conv_->forward(derived.projected, derived.qkv, saved.halo, *scratch.conv);
  norm_and_turn(derived.qkv, derived.norm, derived.inside, context);
  scratch.attention.forward(
      pattern_, sinks(), heads.q, heads.k, heads.v, saved.out, saved.lse,
      [&context] { context.poll(); }, bias().values);
  if (slots_) slots_->forward(heads.q, saved.out, saved.lse, scratch.slots, context);
  context.poll();
  project_output(saved.out, y);
}

void AttentionMixer::rebuild(const TensorView& x, const TensorView& y,
                             const MixerRecord& saved_record, MixerRecord& derived_record,
                             const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  auto& derived = dynamic_cast<Derived&>(derived_record);
  project(x, projected_in(derived));
  if (conv_)
    conv_->rebuild(derived.projected, derived.qkv, saved.halo,
                   *dynamic_cast<Scratch&>(context.scratch).conv);
  norm_and_turn(derived.qkv, derived.norm, derived.inside, context);
  context.poll();
  project_output(saved.out, y);
}

void AttentionMixer::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                              const MixerRecord& saved_record, const MixerRecord& derived_record,
                              const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  const auto& derived = dynamic_cast<const Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  const Heads heads = heads_of(derived.qkv);
  const Heads gradients = heads_of(scratch.dqkv);
  // Of queries and keys as they were turned: behind the norm, if there is one.
  const TensorView turned = norm_ ? scratch.d_normed.view() : gradients.rotated;
  const std::int64_t keys_begin = query_cols(model_);
  kernels::linear_backward_weight(dy, saved.out, output_.gradient_sum());
  context.gradient_ready(output_);
  if (output_bias_) output_bias_->backward(dy, scratch.ones, context.pass);
  kernels::linear_backward_input(dy, packed_output_, scratch.dout);
  context.poll();
  scratch.attention.backward(
      pattern_, sinks(), sinks_ == nullptr ? TensorView{} : sinks_->gradient_sum(), heads.q,
      heads.k, heads.v, saved.out, saved.lse, scratch.dout, turned.slice_cols(0, keys_begin),
      turned.slice_cols(keys_begin, turned.cols()), gradients.v, [&context] { context.poll(); },
      bias().values, scratch.d_bias.empty() ? TensorView{} : scratch.d_bias.view());
  if (sinks_ != nullptr) context.gradient_ready(*sinks_);
  if (relative_) relative_->backward(scratch.d_bias, scratch.bias_ones, context.pass);
  if (span_) span_->backward(scratch.d_bias, scratch.bias_ones, context.pass);
  if (slots_)
    slots_->backward(heads.q, saved.out, saved.lse, scratch.dout, turned.slice_cols(0, keys_begin),
                     scratch.slots, context);
  turn(turned, kernels::Rotation::backward, context);
  if (!derived.inside.empty()) {
    kernels::clip_backward(turned, derived.inside->slice_cols(0, turned.cols()));
    kernels::clip_backward(gradients.v,
                           derived.inside->slice_cols(turned.cols(), qkv_cols(model_)));
  }
  if (norm_)
    norm_->backward(turned, derived.norm, gradients.rotated, scratch.norm_workspace, context.pass);
  if (conv_)
    conv_->backward(scratch.dqkv, derived.projected, scratch.dqkv, saved.halo, *scratch.conv,
                    context);
  context.poll();
  if (qkv_bias_) qkv_bias_->backward(scratch.dqkv, scratch.ones, context.pass);
  kernels::linear_backward_weight(scratch.dqkv, x, qkv_.gradient_sum());
  context.gradient_ready(qkv_);
  kernels::linear_backward_input(scratch.dqkv, packed_qkv_, dx);
}

void AttentionMixer::extend(const TensorView& x, const TensorView& y, std::int64_t num_cached,
                            MixerCache& any_cache, const LayerContext& context) const {
  auto& cache = dynamic_cast<Cache&>(any_cache);
  auto& scratch = dynamic_cast<ExtendScratch&>(context.scratch);
  const std::int64_t num_tokens = x.rows();
  cache.make_room(num_cached, num_tokens);
  const std::int64_t offset = num_cached - cache.num_gone();  // rows of the cache in use
  const std::int64_t length = offset + num_tokens;
  const Heads heads = heads_of(scratch.qkv);
  project(x, conv_ ? scratch.projected : scratch.qkv);
  if (conv_)
    conv_->extend(scratch.projected, scratch.qkv, cache.last_rows(), scratch.rows, num_cached);
  norm_and_turn(scratch.qkv, scratch.norm, TensorView{}, context);
  kernels::copy(heads.k, cache.keys()->slice_rows(offset, length));
  kernels::copy(heads.v, cache.values()->slice_rows(offset, length));
  const PositionRange of_queries{num_cached, num_tokens};
  const std::vector<PositionRange> of_keys = cache.positions(length);
  const kernels::VisibleKeys visible{.queries = {&of_queries, 1},
                                     .keys = of_keys,
                                     .window = pattern_.window,
                                     .globals = pattern_.globals};
  kernels::fill_key_ranges(visible, {}, scratch.first_keys, scratch.end_keys);
  const kernels::KeyRanges key_ranges{scratch.first_keys, scratch.end_keys,
                                      kernels::count_pairs(visible), pattern_.num_sets()};
  kernels::AttentionShape shape = attention_shape(model_, 1, num_tokens, length);
  shape.slopes = slopes_;
  shape.bias = bias();
  shape.bias.num_parameters = 0;  // of gradients only
  shape.query_positions = {&of_queries, 1};
  shape.key_positions = of_keys;
  kernels::attention_forward(shape, heads.q, cache.keys()->slice_rows(0, length),
                             cache.values()->slice_rows(0, length), key_ranges, scratch.out,
                             scratch.lse, kernels::Merge::replace, scratch.workspace);
  if (sinks_ != nullptr)
    kernels::attention_sink_forward(sinks(), model_.effective_head_dim(), scratch.out, scratch.lse);
  if (slots_) slots_->forward(heads.q, scratch.out, scratch.lse, scratch.slots, context);
  project_output(scratch.out, y);
}

}  // namespace switchyard
