#include "model/mixers/conv_attention.hpp"

#include <algorithm>
#include <utility>

#include "kernels/recurrence/span_convolution.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/parameter_spec.hpp"

namespace switchyard {

namespace {

ModelConfig with_fewer_heads(ModelConfig model, const MixerConfig& mixer) {
  model.head_dim = model.effective_head_dim();
  const std::int64_t kv_heads = model.num_kv_heads * mixer.conv_heads / model.num_heads;
  model.num_heads -= mixer.conv_heads;
  model.num_kv_heads -= kv_heads;
  model.mixer = {mixer.attention_part()};
  return model;
}

LayerContext with_scratch(const LayerContext& context, MixerScratch& scratch) {
  return {context.pass, context.layer, context.rope, scratch};
}

}  // namespace

void ConvAttentionMixer::Saved::for_each_tensor(const RecordVisitor& visit) {
  attention->for_each_tensor(visit);
  if (!halo.empty()) visit_tensor(visit, "span_halo", halo);
  if (!rows.empty()) visit_tensor(visit, "span_rows", rows);
}

void ConvAttentionMixer::Derived::for_each_tensor(const RecordVisitor& visit) {
  attention->for_each_tensor(visit);
  visit_tensor(visit, "span_convolved", convolved);
  visit_tensor(visit, "span_pointwise", pointwise);
  visit_tensor(visit, "span_inputs", inputs);
  visit_tensor(visit, "span_products", products);
  visit_tensor(visit, "span_logits", logits);
  visit_tensor(visit, "span_out", out);
}

ConvAttentionMixer::Scratch::Scratch(Device& device, const Mesh& mesh, DType compute,
                                     std::int64_t num_sequences, const SequenceSplit& split,
                                     std::int64_t hidden, std::int64_t channels, std::int64_t width)
    : conv(device, mesh, compute, num_sequences, split, hidden, width),
      span(device, mesh, compute, num_sequences, split, channels, width) {}

void ConvAttentionMixer::Scratch::set_documents(kernels::DocumentStarts document_starts) {
  attention->set_documents(document_starts);
  for (CausalConvolution::Scratch* each : {&conv, &span})
    each->document_starts.assign(document_starts.begin(), document_starts.end());
}

ConvAttentionMixer::Weight::Weight(ParameterStore& store, const std::string& name, std::int64_t out,
                                   std::int64_t in, double std, DType compute)
    : parameter(store.add(weight_spec(
          name, {out, in}, "model.num_heads, model.head_dim, model.hidden, model.mixer", std))),
      packed(store.device(), out, in, compute) {}

ConvAttentionMixer::ConvAttentionMixer(ParameterStore& store, const std::string& prefix,
                                       const ModelConfig& model, const MixerConfig& mixer,
                                       DType compute, std::int64_t layer)
    : device_(store.device()),
      mesh_(store.mesh()),
      hidden_(model.hidden),
      num_heads_(mixer.conv_heads),
      channels_(mixer.conv_heads * model.effective_head_dim()),
      width_(mixer.width),
      compute_(compute),
      attention_(store, prefix, with_fewer_heads(model, mixer), mixer.attention_part(), compute,
                 layer),
      conv_(store, prefix + ".span", model.hidden, mixer.width, false),
      point_(store, prefix + ".span.point.weight", channels_, hidden_, model.initial_std, compute),
      input_(store, prefix + ".span.input.weight", 2 * channels_, hidden_, model.initial_std,
             compute),
      kernel_(store, prefix + ".span.kernel.weight", num_heads_ * width_, channels_,
              model.initial_std, compute),
      output_(store, prefix + ".span.output.weight", hidden_, channels_, residual_std(model),
              compute),
      kind_("conv" + std::to_string(num_heads_) + "x" + std::to_string(width_) + "_" +
            std::string(attention_.kind())) {}

void ConvAttentionMixer::fill(Derived& derived, std::int64_t num_tokens, Purpose purpose) const {
  const auto make = [&](DType dtype, std::int64_t cols) {
    return Tensor(device_, purpose, dtype, {num_tokens, cols});
  };
  derived.convolved = make(compute_, hidden_);
  derived.pointwise = make(compute_, channels_);
  derived.inputs = make(compute_, 2 * channels_);
  derived.products = make(compute_, channels_);
  derived.logits = make(DType::f32, num_heads_ * width_);
  derived.out = make(compute_, channels_);
}

std::unique_ptr<MixerRecord> ConvAttentionMixer::make_saved(std::int64_t num_tokens,
                                                            std::int64_t num_sequences) const {
  auto saved = std::make_unique<Saved>();
  saved->attention = attention_.make_saved(num_tokens, num_sequences);
  if (mesh_.degree(Axis::context) == 1) return saved;
  saved->halo = conv_.make_halo(compute_, num_sequences);
  saved->rows = Tensor(device_, Purpose::activation, compute_,
                       {num_tokens + num_sequences * (width_ - 1) * most_runs(mesh_), channels_});
  return saved;
}

std::unique_ptr<MixerRecord> ConvAttentionMixer::make_derived(std::int64_t num_tokens,
                                                              std::int64_t num_sequences) const {
  auto derived = std::make_unique<Derived>();
  derived->attention = attention_.make_derived(num_tokens, num_sequences);
  fill(*derived, num_tokens, Purpose::activation);
  return derived;
}

std::unique_ptr<MixerScratch> ConvAttentionMixer::make_scratch(std::int64_t num_sequences,
                                                               const SequenceSplit& split) const {
  auto scratch = std::make_unique<Scratch>(device_, mesh_, compute_, num_sequences, split, hidden_,
                                           channels_, width_);
  scratch->attention = attention_.make_scratch(num_sequences, split);
  const std::int64_t num_tokens = num_sequences * num_positions(scratch->conv.held);
  const auto make = [&](DType dtype, std::int64_t cols) {
    return Tensor(device_, Purpose::workspace, dtype, {num_tokens, cols});
  };
  scratch->y = make(compute_, hidden_);
  for (Tensor* each : {&scratch->d_out, &scratch->d_products, &scratch->d_pointwise})
    *each = make(compute_, channels_);
  scratch->d_inputs = make(compute_, 2 * channels_);
  scratch->d_logits = make(DType::f32, num_heads_ * width_);
  scratch->d_kernels = make(compute_, num_heads_ * width_);
  scratch->d_convolved = make(compute_, hidden_);
  return scratch;
}

std::unique_ptr<MixerCache> ConvAttentionMixer::make_cache(std::int64_t max_length,
                                                           std::int64_t max_new_tokens) const {
  auto cache = std::make_unique<Cache>();
  cache->attention = attention_.make_cache(max_length, max_new_tokens);
  if (width_ == 1) return cache;
  cache->last_x = Tensor(device_, Purpose::activation, compute_, {width_ - 1, hidden_});
  cache->last_u = Tensor(device_, Purpose::activation, compute_, {width_ - 1, channels_});
  return cache;
}

std::unique_ptr<MixerScratch> ConvAttentionMixer::make_extend_scratch(
    std::int64_t num_tokens, std::int64_t max_length) const {
  auto scratch = std::make_unique<ExtendScratch>();
  scratch->attention = attention_.make_extend_scratch(num_tokens, max_length);
  fill(scratch->derived, num_tokens, Purpose::workspace);
  const std::int64_t rows = width_ - 1 + num_tokens;
  scratch->rows_x = Tensor(device_, Purpose::workspace, compute_, {rows, hidden_});
  scratch->rows_u = Tensor(device_, Purpose::workspace, compute_, {rows, channels_});
  scratch->y = Tensor(device_, Purpose::workspace, compute_, {num_tokens, hidden_});
  return scratch;
}

void ConvAttentionMixer::pack_weights() {
  attention_.pack_weights();
  for (Weight* each : {&point_, &input_, &kernel_, &output_})
    each->packed.pack(each->parameter.value());
}

kernels::ConvolutionShape ConvAttentionMixer::shape_of(
    const CausalConvolution::Scratch& span) const {
  return {.num_sequences = span.num_sequences,
          .held = span.held,
          .read = span.read,
          .channels = channels_,
          .width = width_,
          .document_starts = span.document_starts};
}

void ConvAttentionMixer::project(const TensorView& x, const Derived& derived) const {
  kernels::linear_forward(derived.convolved, point_.packed, derived.pointwise);
  kernels::linear_forward(x, input_.packed, derived.inputs);
  kernels::multiply_elements(queries(derived), derived.pointwise, derived.products);
  kernels::linear_forward(derived.products, kernel_.packed, derived.logits);
}

void ConvAttentionMixer::add_heads(const kernels::ConvolutionShape& shape, const TensorView& rows,
                                   const Derived& derived, const Tensor& scratch,
                                   const TensorView& y) const {
  kernels::span_convolution_forward(shape, rows, derived.logits, derived.out);
  kernels::linear_forward(derived.out, output_.packed, scratch);
  kernels::add(y, scratch, y);
}

void ConvAttentionMixer::forward(const TensorView& x, const TensorView& y,
                                 MixerRecord& saved_record, MixerRecord& derived_record,
                                 const LayerContext& context) const {
  auto& saved = dynamic_cast<Saved&>(saved_record);
  auto& derived = dynamic_cast<Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  attention_.forward(x, y, *saved.attention, *derived.attention,
                     with_scratch(context, *scratch.attention));
  conv_.forward(x, derived.convolved, saved.halo, scratch.conv);
  project(x, derived);
  TensorView rows = values(derived.inputs);
  if (scratch.span.exchange) {
    const TensorView own = rows;
    rows = saved.rows->slice_rows(0, scratch.span.dx->rows());
    scratch.span.exchange->gather({&own, 1}, rows, scratch.span.messages);
  }
  context.poll();
  add_heads(shape_of(scratch.span), rows, derived, scratch.y, y);
}

void ConvAttentionMixer::rebuild(const TensorView& x, const TensorView& y,
                                 const MixerRecord& saved_record, MixerRecord& derived_record,
                                 const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  auto& derived = dynamic_cast<Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  attention_.rebuild(x, y, *saved.attention, *derived.attention,
                     with_scratch(context, *scratch.attention));
  conv_.rebuild(x, derived.convolved, saved.halo, scratch.conv);
  project(x, derived);
  const TensorView rows = scratch.span.exchange ? saved.rows->slice_rows(0, scratch.span.dx->rows())
                                                : values(derived.inputs);
  add_heads(shape_of(scratch.span), rows, derived, scratch.y, y);
}

void ConvAttentionMixer::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                                  const MixerRecord& saved_record,
                                  const MixerRecord& derived_record,
                                  const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  const auto& derived = dynamic_cast<const Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  CausalConvolution::Scratch& span = scratch.span;
  attention_.backward(dy, x, dx, *saved.attention, *derived.attention,
                      with_scratch(context, *scratch.attention));
  const auto learn = [&](const Weight& weight, const TensorView& d_out, const TensorView& in) {
    kernels::linear_backward_weight(d_out, in, weight.parameter.gradient_sum());
    context.gradient_ready(weight.parameter);
  };
  learn(output_, dy, derived.out);
  kernels::linear_backward_input(dy, output_.packed, scratch.d_out);
  const TensorView rows =
      span.exchange ? saved.rows->slice_rows(0, span.dx->rows()) : values(derived.inputs);
  kernels::span_convolution_backward(shape_of(span), scratch.d_out, rows, derived.logits, span.dx,
                                     scratch.d_logits);
  const TensorView du = values(scratch.d_inputs);
  if (span.exchange) {
    span.exchange->bring_home(span.dx, span.messages);
    span.exchange->take_own(span.dx, du);
  } else {
    kernels::copy(span.dx, du);
  }
  kernels::copy(scratch.d_logits, scratch.d_kernels);
  learn(kernel_, scratch.d_kernels, derived.products);
  kernels::linear_backward_input(scratch.d_kernels, kernel_.packed, scratch.d_products);
  kernels::multiply_elements(scratch.d_products, queries(derived), scratch.d_pointwise);
  kernels::multiply_elements(scratch.d_products, derived.pointwise,
                             scratch.d_inputs->slice_cols(0, channels_));
  learn(input_, scratch.d_inputs, x);
  kernels::linear_backward_input(scratch.d_inputs, input_.packed, dx, kernels::Accumulate::yes);
  learn(point_, scratch.d_pointwise, derived.convolved);
  kernels::linear_backward_input(scratch.d_pointwise, point_.packed, scratch.d_convolved);
  conv_.backward(scratch.d_convolved, x, scratch.d_convolved, saved.halo, scratch.conv, context);
  kernels::add(dx, scratch.d_convolved, dx);
}

void ConvAttentionMixer::extend(const TensorView& x, const TensorView& y, std::int64_t num_cached,
                                MixerCache& any_cache, const LayerContext& context) const {
  auto& cache = dynamic_cast<Cache&>(any_cache);
  auto& scratch = dynamic_cast<ExtendScratch&>(context.scratch);
  attention_.extend(x, y, num_cached, *cache.attention, with_scratch(context, *scratch.attention));
  conv_.extend(x, scratch.derived.convolved, cache.last_x, scratch.rows_x, num_cached);
  project(x, scratch.derived);
  const std::int64_t num_before = std::min(width_ - 1, num_cached);
  const TensorView rows = CausalConvolution::behind_last(values(scratch.derived.inputs),
                                                         cache.last_u, scratch.rows_u, num_before);
  const PositionRange held{num_cached, x.rows()};
  const PositionRange read{num_cached - num_before, rows.rows()};
  add_heads({.num_sequences = 1,
             .held = {&held, 1},
             .read = {&read, 1},
             .channels = channels_,
             .width = width_},
            rows, scratch.derived, scratch.y, y);
  CausalConvolution::keep_last(rows, x.rows(), cache.last_u);
}

}  // namespace switchyard
