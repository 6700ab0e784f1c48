#include "model/mixers/attention.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/recurrence/feature_map.hpp"
#include "kernels/rows/clip.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/mixers/random_directions.hpp"
#include "model/parameter_spec.hpp"
#include "model/rope_spec.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Drawn from the number of the layer alone.
Tensor make_directions(Device& device, const ModelConfig& model, const MixerConfig& attention,
                       std::int64_t layer) {
  if (!attention.shares_keys()) return {};
  const std::int64_t num = attention.rounds * attention.buckets / 2;
  const std::vector<float> values = random_directions(
      num, model.effective_head_dim(), random_key(0, "hash of attention " + std::to_string(layer)));
  Tensor directions(device, Purpose::parameter, DType::f32, {num, model.effective_head_dim()});
  kernels::copy_from_host<float>(values, directions);
  return directions;
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

}  // namespace

std::int64_t num_bias_parameters(const ModelConfig& model, const MixerConfig& attention) {
  if (attention.ramp > 0) return 1;
  return model.position.kind == PositionKind::relative ? model.position.buckets : 0;
}

AttentionSizes attention_sizes(const ModelConfig& model, const MixerConfig& attention,
                               std::int64_t num_sequences) {
  return {.num_sequences = num_sequences,
          .num_heads = model.num_heads,
          .num_kv_heads = model.num_kv_heads,
          .head_dim = model.effective_head_dim(),
          .scale = attention.shares_keys() ? 1.0f : attention_scale(model),
          .slopes = alibi_slopes(model),
          .bias_parameters = attention.ramp > 0 ? AdaptiveSpan::parameters(attention)
                                                : RelativeBias::buckets(model),
          .num_bias_parameters = num_bias_parameters(model, attention),
          .num_distances = model.has_distance_keys() ? model.sequence_length : 0};
}

std::int64_t projected_cols(const ModelConfig& model, bool shares_keys) {
  return model.query_cols() + (shares_keys ? 1 : 2) * model.key_cols();
}

namespace {

// Of a layer whose queries see their segment and a memory before it: one of them.
kernels::KeyPattern own_segment(const MixerConfig& attention) {
  kernels::KeyPattern pattern(attention.length);
  pattern.block = attention.length;
  return pattern;
}
kernels::KeyPattern memory_of_segment(kernels::KeyPattern pattern) {
  pattern.before_block = true;
  return pattern;
}

}  // namespace

std::vector<kernels::KeyPattern> attention_patterns(const ModelConfig& model) {
  std::vector<kernels::KeyPattern> patterns;
  const auto add = [&](const kernels::KeyPattern& pattern) {
    if (std::ranges::find(patterns, pattern) == patterns.end()) patterns.push_back(pattern);
  };
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer) {
    const MixerConfig& mixer = model.mixer_of_layer(layer);
    if (!mixer.is_attention()) continue;
    const kernels::KeyPattern pattern = mixer.key_pattern(layer);
    if (mixer.has_gates()) {
      for (const kernels::KeyPattern& branch : pattern.branches()) add(branch);
      continue;
    }
    add(pattern);
    if (!mixer.stops_gradient()) continue;
    add(own_segment(mixer));
    add(memory_of_segment(pattern));
  }
  return patterns;
}

namespace {

// Keys of the configuration that decide the shapes of the weights.
constexpr const char* shape_keys =
    "model.num_heads, model.num_kv_heads, model.head_dim, model.hidden";

// Layers that share scratch: those of as many taps, distances and slots.
std::string kind_of(const MixerConfig& attention) {
  std::string kind = "attention";
  if (attention.conv > 0) kind += "_conv" + std::to_string(attention.conv);
  if (attention.ramp > 0) kind += "_span" + std::to_string(attention.window);
  if (attention.shares_keys()) kind += "_classes";
  if (attention.has_gates()) kind += "_gates";
  if (attention.selected > 0) kind += "_selected" + std::to_string(attention.selected);
  if (attention.stops_gradient()) kind += "_segments";
  if (attention.compressed > 0)
    kind += "_compressed" + std::to_string(attention.compressed) + "_" +
            std::to_string(attention.ratio) + "_" + std::to_string(attention.length) + "_" +
            std::to_string(attention.memory);
  if (attention.slots > 0) kind += "_slots" + std::to_string(attention.slots);
  return kind;
}

std::optional<RowBias> make_bias(ParameterStore& store, bool wanted, const std::string& name,
                                 std::int64_t width, DType compute) {
  if (!wanted) return std::nullopt;
  return std::optional<RowBias>(std::in_place, store, bias_spec(name, width, shape_keys), compute);
}

}  // namespace

AttentionMixer::AttentionMixer(ParameterStore& store, const std::string& prefix,
                               const ModelConfig& model, const MixerConfig& attention,
                               DType compute, std::int64_t layer)
    : device_(store.device()),
      mesh_(store.mesh()),
      model_(model),
      pattern_(attention.key_pattern(layer)),
      own_(own_segment(attention)),
      memory_(memory_of_segment(pattern_)),
      slopes_(alibi_slopes(model)),
      config_(attention),
      conv_width_(attention.conv),
      kind_(kind_of(attention)),
      compute_(compute),
      qkv_(store.add(weight_spec(prefix + ".qkv.weight",
                                 {projected_cols(model, attention.shares_keys()), model.hidden},
                                 shape_keys, model.initial_std))),
      output_(store.add(weight_spec(prefix + ".output.weight", {model.hidden, model.query_cols()},
                                    shape_keys, residual_std(model)))),
      sinks_(attention.sinks == 0
                 ? nullptr
                 : &store.add(sink_spec(prefix + ".sinks", model.num_heads, attention.sinks))),
      qkv_bias_(make_bias(store, model.qkv_bias, prefix + ".qkv.bias",
                          projected_cols(model, attention.shares_keys()), compute)),
      output_bias_(
          make_bias(store, model.output_bias, prefix + ".output.bias", model.hidden, compute)),
      directions_(make_directions(store.device(), model, attention, layer)),
      packed_qkv_(store.device(), projected_cols(model, attention.shares_keys()), model.hidden,
                  compute),
      packed_output_(store.device(), model.hidden, model.query_cols(), compute) {
  expect(model.num_kv_heads > 0 && model.num_heads % model.num_kv_heads == 0,
         "a num_heads that is a multiple of num_kv_heads");
  expect(model.effective_head_dim() > 0 &&
             (!model.turns_positions() || model.effective_head_dim() % 2 == 0),
         "an even head_dim, as rotary positions turn pairs");
  if (conv_width_ > 0)
    conv_.emplace(store, prefix, projected_cols(model, attention.shares_keys()), conv_width_,
                  false);
  if (model.qk_norm != QkNorm::none) norm_.emplace(store, prefix, model);
  if (attention.ramp > 0)
    span_.emplace(store, prefix, model, attention);
  else if (model.position.kind == PositionKind::relative)
    relative_.emplace(store, prefix, model);
  if (model.has_distance_keys()) distances_.emplace(store, prefix, model, compute);
  if (attention.summaries == BlockSummary::linear) summaries_.emplace(store, prefix, attention);
  if (attention.compressed > 0) compressed_.emplace(store, prefix, model, attention, compute);
  if (attention.has_gates()) gates_.emplace(store, prefix, model, compute);
  if (attention.slots > 0) slots_.emplace(store, prefix, model, attention.slots, compute);
}

void AttentionMixer::pack_weights() {
  packed_qkv_.pack(qkv_.value());
  packed_output_.pack(output_.value());
  if (qkv_bias_) qkv_bias_->pack_weights();
  if (output_bias_) output_bias_->pack_weights();
  if (relative_) relative_->pack_weights();
  if (span_) span_->pack_weights();
  if (slots_) slots_->pack_weights();
  if (compressed_) compressed_->pack_weights();
  if (distances_) distances_->pack_weights();
  if (gates_) gates_->pack_weights();
}

AttentionMixer::Heads AttentionMixer::heads_of(const TensorView& qkv) const {
  const std::int64_t k_begin = model_.query_cols();
  const std::int64_t v_begin = k_begin + model_.key_cols();
  const std::int64_t end = v_begin + model_.key_cols();
  if (config_.shares_keys())
    return {qkv.slice_cols(0, k_begin), qkv.slice_cols(v_begin, end),
            qkv.slice_cols(k_begin, v_begin), qkv.slice_cols(0, k_begin)};
  return {qkv.slice_cols(0, k_begin), qkv.slice_cols(k_begin, v_begin),
          qkv.slice_cols(v_begin, end), qkv.slice_cols(0, v_begin)};
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

AttentionInputs AttentionMixer::inputs_of(const Heads& heads, const Saved& saved,
                                          const Scratch& scratch) const {
  AttentionInputs inputs{heads.q, heads.k, heads.v, bias().values};
  if (!saved.chosen.empty()) inputs.chosen = saved.chosen;
  if (distances_) distances_->put_queries(inputs, scratch.distances);
  if (summaries_) summaries_->put_weights(inputs);
  if (!directions_.empty()) inputs.directions = directions_;
  return inputs;
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
  if (config_.shares_keys())
    kernels::feature_map_forward(kernels::FeatureMap::unit, heads_of(qkv).q,
                                 model_.effective_head_dim(), heads_of(qkv).k);
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
  if (conv_)
    conv_->forward(derived.projected, projected_part(derived.qkv), saved.halo, *scratch.conv);
  else if (config_.shares_keys())
    kernels::copy(derived.projected, projected_part(derived.qkv));
  norm_and_turn(derived.qkv, derived.norm, derived.inside, context);
  const auto attend = [&](const kernels::KeyPattern& pattern, const TensorView& out,
                          const TensorView& lse) {
    scratch.attention.forward(pattern, sinks(), inputs_of(heads, saved, scratch), out, lse,
                              [&context] { context.poll(); });
  };
  if (gates_) {
    gates_->forward(x, derived.gates);
    const auto branches = pattern_.branches();
    for (std::size_t c = 0; c < branches.size(); ++c) {
      const auto number = static_cast<std::int64_t>(c);
      attend(branches[c], BranchGates::branch(saved.branches, number),
             BranchGates::branch(saved.lse, number));
    }
    gates_->combine(saved.branches, derived.gates, saved.out);
  } else {
    attend(pattern_, saved.out, saved.lse);
  }
  if (slots_) slots_->forward(heads.q, saved.out, saved.lse, scratch.slots, context);
  if (compressed_)
    compressed_->forward(x, packed_qkv_, {heads.q, heads.k, heads.v, saved.out, saved.lse},
                         *scratch.compressed);
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
    conv_->rebuild(derived.projected, projected_part(derived.qkv), saved.halo,
                   *dynamic_cast<Scratch&>(context.scratch).conv);
  else if (config_.shares_keys())
    kernels::copy(derived.projected, projected_part(derived.qkv));
  norm_and_turn(derived.qkv, derived.norm, derived.inside, context);
  if (gates_) gates_->forward(x, derived.gates);
  context.poll();
  project_output(saved.out, y);
}

void AttentionMixer::backward_of_attention(const kernels::KeyPattern& pattern, bool with_sinks,
                                           const Attended& attended, const Saved& saved,
                                           const Derived& derived,
                                           const LayerContext& context) const {
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  const Heads heads = heads_of(derived.qkv);
  const TensorView turned = turned_gradients(scratch);
  const std::int64_t keys_begin = model_.query_cols();
  with_sinks = with_sinks && sinks_ != nullptr;
  if (distances_) kernels::fill_zero(scratch.distances.d_keys);
  AttentionRowGradients gradients{turned.slice_cols(0, keys_begin),
                                  config_.shares_keys()
                                      ? heads_of(scratch.dqkv).k
                                      : turned.slice_cols(keys_begin, turned.cols()),
                                  heads_of(scratch.dqkv).v};
  if (!scratch.d_bias.empty()) gradients.bias = scratch.d_bias;
  if (distances_) {
    gradients.distance_queries = scratch.distances.d_distance_queries;
    gradients.distance_keys = scratch.distances.d_keys;
  }
  if (summaries_) summaries_->put_gradients(gradients);
  scratch.attention.backward(pattern, with_sinks ? sinks() : TensorView{},
                             with_sinks ? sinks_->gradient_sum() : TensorView{},
                             inputs_of(heads, saved, scratch), attended.out, attended.lse,
                             attended.dout, gradients, [&context] { context.poll(); });
  if (distances_)
    distances_->backward(turned.slice_cols(0, keys_begin), scratch.distances, context.pass);
  if (summaries_) summaries_->report_ready(context.pass);
  if (relative_) relative_->backward(scratch.d_bias, scratch.bias_ones, context.pass);
  if (span_) span_->backward(scratch.d_bias, scratch.bias_ones, context.pass);
}

void AttentionMixer::backward_to_projection(const TensorView& x, const Saved& saved,
                                            const Derived& derived,
                                            const LayerContext& context) const {
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  const TensorView turned = turned_gradients(scratch);
  const Heads gradients = heads_of(scratch.dqkv);
  const TensorView projected = projected_part(scratch.dqkv);
  if (config_.shares_keys()) {
    kernels::feature_map_backward(kernels::FeatureMap::unit, gradients.k, heads_of(derived.qkv).q,
                                  model_.effective_head_dim(), gradients.k);
    kernels::add(gradients.q, gradients.k, gradients.q);
  }
  turn(turned, kernels::Rotation::backward, context);
  if (!derived.inside.empty()) {
    kernels::clip_backward(turned, derived.inside->slice_cols(0, turned.cols()));
    kernels::clip_backward(gradients.v,
                           derived.inside->slice_cols(turned.cols(), scratch.dqkv->cols()));
  }
  if (norm_)
    norm_->backward(turned, derived.norm, gradients.rotated, scratch.norm_workspace, context.pass);
  if (conv_)
    conv_->backward(projected, derived.projected, projected, saved.halo, *scratch.conv, context);
  context.poll();
  if (qkv_bias_) qkv_bias_->backward(projected, scratch.ones, context.pass);
  kernels::linear_backward_weight(projected, x, qkv_.gradient_sum());
  context.gradient_ready(qkv_);
}

// In a pass that tells nobody of gradients: the segment's own share of them follows.
void AttentionMixer::learn_of_memory(const TensorView& x, const Saved& saved,
                                     const Derived& derived, const LayerContext& context) const {
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  Pass untold = context.pass;
  untold.sync = nullptr;
  const LayerContext quiet{untold, context.layer, context.rope, scratch};
  backward_of_attention(memory_, false, {saved.out, saved.lse, scratch.dout}, saved, derived,
                        quiet);
  const TensorView dq = turned_gradients(scratch).slice_cols(0, model_.query_cols());
  kernels::copy(dq, scratch.dq_of_memory);
  kernels::fill_zero(dq);
  backward_to_projection(x, saved, derived, quiet);
}

void AttentionMixer::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                              const MixerRecord& saved_record, const MixerRecord& derived_record,
                              const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  const auto& derived = dynamic_cast<const Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  kernels::linear_backward_weight(dy, saved.out, output_.gradient_sum());
  context.gradient_ready(output_);
  if (output_bias_) output_bias_->backward(dy, scratch.ones, context.pass);
  kernels::linear_backward_input(dy, packed_output_, scratch.dout);
  context.poll();
  const TensorView dq = turned_gradients(scratch).slice_cols(0, model_.query_cols());
  const bool stops = config_.stops_gradient();
  if (stops) learn_of_memory(x, saved, derived, context);
  if (gates_)
    backward_of_branches(x, saved, derived, context);
  else
    backward_of_attention(stops ? own_ : pattern_, true, {saved.out, saved.lse, scratch.dout},
                          saved, derived, context);
  if (stops) kernels::add(dq, scratch.dq_of_memory, dq);
  if (sinks_ != nullptr) context.gradient_ready(*sinks_);
  if (slots_)
    slots_->backward(heads_of(derived.qkv).q, saved.out, saved.lse, scratch.dout, dq, scratch.slots,
                     context);
  if (compressed_) {
    const Heads heads = heads_of(derived.qkv);
    compressed_->backward(x, packed_qkv_, qkv_, {heads.q, heads.k, heads.v, saved.out, saved.lse},
                          scratch.dout, dq, *scratch.compressed, context);
  }
  backward_to_projection(x, saved, derived, context);
  kernels::linear_backward_input(projected_part(scratch.dqkv), packed_qkv_, dx);
  if (gates_) gates_->add_to_input(scratch.branches, dx);
}

}  // namespace switchyard
