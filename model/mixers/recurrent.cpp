#include "model/mixers/recurrent.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/host_copy.hpp"
#include "kernels/recurrence/decay_gates.hpp"
#include "kernels/recurrence/random_features.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/mixers/random_directions.hpp"
#include "model/parameter_spec.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

using kernels::FeatureSide;

// Keys of the configuration that decide the shapes of the weights.
constexpr const char* shape_keys = "model.mixer, model.num_heads, model.head_dim, model.hidden";

// Of each head. They do not decay, as in Mamba.
ParameterSpec head_spec(std::string name, std::vector<float> values) {
  ParameterSpec spec =
      weight_spec(std::move(name), {static_cast<std::int64_t>(values.size())}, shape_keys, 0);
  spec.decay = false;
  spec.initial = Initial::given;
  spec.initial_values = std::move(values);
  return spec;
}

// log 1, log 2 ... log A, as Hugging Face's Mamba2 starts.
std::vector<float> initial_rates(std::int64_t num_heads) {
  std::vector<float> rates;
  for (std::int64_t h = 1; h <= num_heads; ++h)
    rates.push_back(static_cast<float>(std::log(static_cast<double>(h))));
  return rates;
}

// Steps from 0.001 to 0.1, evenly in their logarithms (Gu and Dao 2023): softplus's inverse of
// them.
std::vector<float> initial_rate_biases(std::int64_t num_heads) {
  std::vector<float> biases;
  for (std::int64_t h = 0; h < num_heads; ++h) {
    const double place = (static_cast<double>(h) + 0.5) / static_cast<double>(num_heads);
    const double step = std::exp(std::log(1e-3) + place * (std::log(0.1) - std::log(1e-3)));
    biases.push_back(static_cast<float>(step + std::log(-std::expm1(-step))));
  }
  return biases;
}

// "ssd" of the first entry of the kind in model.mixer, "ssd_2" of entry 2, which may have other
// sizes.
std::string name_of_entry(const ModelConfig& model, std::int64_t layer) {
  const MixerConfig& own = model.mixer_of_layer(layer);
  const std::string name(name_of(own.kind));
  std::size_t first_of_kind = model.mixer.size();
  for (std::size_t i = 0; i < model.mixer.size(); ++i) {
    if (model.mixer[i].kind != own.kind) continue;
    first_of_kind = std::min(first_of_kind, i);
    if (model.mixer[i] == own) return i == first_of_kind ? name : name + "_" + std::to_string(i);
  }
  return name;
}

}  // namespace

RecurrentMixer::RecurrentMixer(ParameterStore& store, const std::string& prefix,
                               const ModelConfig& model, std::int64_t layer, DType compute)
    : device_(store.device()),
      mesh_(store.mesh()),
      form_(recurrent_form(model, layer)),
      kind_(name_of_entry(model, layer)),
      compute_(compute),
      in_(store.add(weight_spec(prefix + ".in.weight", {form_.num_cols(), model.hidden}, shape_keys,
                                model.initial_std))) {
  expect(form_.num_heads % form_.num_groups == 0, "a number of heads that the groups divide");
  expect(!form_.rotates || form_.key_width == model.effective_head_dim(),
         "keys as wide as a head, which positions turn");
  if (form_.conv > 0) conv_.emplace(store, prefix, form_.mixed_cols(), form_.conv, form_.conv_bias);
  if (form_.segment > 0) local_.emplace(store, prefix, form_);
  if (form_.has_norm) {
    ParameterSpec spec = norm_spec(prefix + ".norm.weight", form_.norm_weights);
    spec.keys = shape_keys;
    norm_ = &store.add(std::move(spec));
  }
  if (form_.learns_decay) {
    rate_ = &store.add(head_spec(prefix + ".decay.rate", initial_rates(form_.num_heads)));
    rate_bias_ =
        &store.add(head_spec(prefix + ".decay.bias", initial_rate_biases(form_.num_heads)));
  }
  if (form_.has_steps)
    skip_ = &store.add(head_spec(
        prefix + ".skip", std::vector<float>(static_cast<std::size_t>(form_.num_heads), 1.0f)));
  output_ = &store.add(weight_spec(prefix + ".output.weight", {model.hidden, form_.value_cols()},
                                   shape_keys, residual_std(model)));
  packed_in_ = kernels::PackedWeight(device_, form_.num_cols(), model.hidden, compute);
  packed_output_ = kernels::PackedWeight(device_, model.hidden, form_.value_cols(), compute);
  if (form_.num_random_features > 0)
    directions_ = constants(
        {form_.num_random_features, form_.key_width},
        random_directions(form_.num_random_features, form_.key_width, form_.random_features));
  if (!form_.decay.empty()) decay_ = constants({1, form_.num_heads}, form_.decay);
}

Tensor RecurrentMixer::constants(const Shape& shape, const std::vector<float>& values) const {
  Tensor tensor(device_, Purpose::workspace, DType::f32, shape);
  kernels::write_from_host<float>(
      tensor, [&](std::span<float> to) { std::ranges::copy(values, to.begin()); });
  return tensor;
}

void RecurrentMixer::pack_weights() {
  packed_in_.pack(in_.value());
  packed_output_.pack(output_->value());
}

RecurrentMixer::Mixed RecurrentMixer::mixed_of(const TensorView& rows) const {
  const std::int64_t k = form_.key_cols(), v = 2 * k;
  return {rows.slice_cols(0, k), rows.slice_cols(k, v), rows.slice_cols(v, form_.mixed_cols()),
          rows.slice_cols(0, v)};
}

RecurrentMixer::Mixed RecurrentMixer::mapped_of(const TensorView& rows) const {
  const std::int64_t k = form_.feature_cols(), v = 2 * k;
  return {rows.slice_cols(0, k), rows.slice_cols(k, v), rows.slice_cols(v, form_.mapped_cols()),
          rows.slice_cols(0, v)};
}

TensorView RecurrentMixer::mixed_in(const TensorView& projected) const {
  return columns(projected, 0, form_.mixed_cols());
}

TensorView RecurrentMixer::gate_in(const TensorView& projected) const {
  if (!form_.has_gate()) return {};
  return columns(projected, form_.gate_begin(), form_.value_cols());
}

TensorView RecurrentMixer::source_of(const Derived& derived) const {
  return conv_ ? derived.convolved.view() : mixed_in(derived.projected);
}

void RecurrentMixer::make_gates(const Derived& derived) const {
  if (form_.learns_decay)
    kernels::decay_gates_forward(columns(derived.projected, form_.decay_begin(), form_.num_heads),
                                 rate_->value(), rate_bias_->value(),
                                 derived.steps.empty() ? TensorView{} : derived.steps.view(),
                                 derived.gates);
  if (form_.delta)
    kernels::beta_gates_forward(columns(derived.projected, form_.beta_begin(), form_.num_heads),
                                form_.most_beta, derived.betas);
}

void RecurrentMixer::turn(const Mixed& mixed, kernels::Rotation rotation,
                          const LayerContext& context) const {
  if (!form_.rotates) return;
  kernels::rope(mixed.keys, context.rope, context.pass.rotary_positions, form_.key_width, rotation);
}

void RecurrentMixer::map(const TensorView& source, const TensorView& mapped,
                         const TensorView& workspace, const LayerContext& context) const {
  const Mixed from = mixed_of(source), to = mapped_of(mapped);
  if (directions_.empty()) {
    kernels::feature_map_forward(form_.key_map, from.keys, form_.key_width, to.keys);
  } else {
    kernels::random_features_forward(FeatureSide::queries, from.q, directions_, to.q, workspace);
    kernels::random_features_forward(FeatureSide::keys, from.k, directions_, to.k, workspace);
  }
  kernels::feature_map_forward(form_.value_map, from.v, form_.value_width, to.v);
  turn(to, kernels::Rotation::forward, context);
}

void RecurrentMixer::map_backward(const Mixed& d_mapped, const Mixed& source, const Mixed& d_source,
                                  const TensorView& workspace) const {
  if (directions_.empty()) {
    kernels::feature_map_backward(form_.key_map, d_mapped.keys, source.keys, form_.key_width,
                                  d_source.keys);
  } else {
    kernels::random_features_backward(FeatureSide::queries, d_mapped.q, source.q, directions_,
                                      d_source.q, workspace);
    kernels::random_features_backward(FeatureSide::keys, d_mapped.k, source.k, directions_,
                                      d_source.k, workspace);
  }
  kernels::feature_map_backward(form_.value_map, d_mapped.v, source.v, form_.value_width,
                                d_source.v);
}

kernels::RecurrenceInputs RecurrentMixer::inputs_of(const TensorView& mapped,
                                                    const Derived& derived) const {
  const Mixed mixed = mapped_of(mapped);
  kernels::RecurrenceInputs inputs{.q = mixed.q, .k = mixed.k, .v = mixed.v};
  if (form_.learns_decay) inputs.gates = derived.gates;
  if (!decay_.empty()) inputs.gates = decay_;
  if (form_.delta) inputs.betas = derived.betas;
  if (form_.has_steps) {
    inputs.steps = derived.steps;
    inputs.skip = skip_->value();
  }
  return inputs;
}

kernels::RecurrenceOutputs RecurrentMixer::outputs_of(const Saved& saved) const {
  return {.out = saved.out,
          .denominators = form_.normalized ? saved.denominators.view() : TensorView{}};
}

TensorView RecurrentMixer::normed_of(const Saved& saved, const Derived& derived,
                                     const Tensor& normed) const {
  if (local_) {
    local_->mix(saved.out, saved.local, normed);
    return normed;
  }
  if (!form_.has_norm) return saved.out;
  kernels::gated_norm_forward(form_.norm, saved.out, gate_in(derived.projected), norm_->value(),
                              normed);
  return normed;
}

namespace {

// Of a micro-batch in training.
kernels::RecurrenceShape shape_of(const RecurrentForm& form,
                                  const RecurrentMixer::Scratch& scratch) {
  kernels::RecurrenceShape shape = recurrence_shape(form, scratch.num_sequences, scratch.held);
  shape.document_starts = scratch.document_starts;
  return shape;
}

// The states of this rank's runs; none where a sequence is whole.
TensorView states_of(const kernels::RecurrenceShape& shape, const RecurrentMixer::Saved& saved) {
  if (saved.states.empty()) return {};
  return saved.states->slice_rows(0, shape.num_runs() * shape.num_sequences * shape.num_heads);
}

}  // namespace

void RecurrentMixer::forward(const TensorView& x, const TensorView& y, MixerRecord& saved_record,
                             MixerRecord& derived_record, const LayerContext& context) const {
  auto& saved = dynamic_cast<Saved&>(saved_record);
  auto& derived = dynamic_cast<Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  const kernels::Poll poll = [&context] { context.poll(); };
  kernels::linear_forward(x, packed_in_, derived.projected);
  poll();
  if (conv_)
    conv_->forward(mixed_in(derived.projected), derived.convolved, saved.halo, *scratch.conv);
  make_gates(derived);
  map(source_of(derived), scratch.mapped, scratch.workspace, context);
  const kernels::RecurrenceShape shape = shape_of(form_, scratch);
  const kernels::RecurrenceInputs inputs = inputs_of(scratch.mapped, derived);
  const TensorView states = states_of(shape, saved);
  if (scratch.scan)
    scratch.scan->forward(shape, inputs, states, saved.transitions, scratch.workspace, poll);
  kernels::recurrence_forward(shape, inputs, states, outputs_of(saved), {}, scratch.workspace,
                              poll);
  if (local_)
    local_->forward(local_rows(mixed_of(source_of(derived))), saved.local, saved.lse,
                    *scratch.local, context);
  kernels::linear_forward(normed_of(saved, derived, scratch.normed), packed_output_, y);
}

void RecurrentMixer::rebuild(const TensorView& x, const TensorView& y,
                             const MixerRecord& saved_record, MixerRecord& derived_record,
                             const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  auto& derived = dynamic_cast<Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  kernels::linear_forward(x, packed_in_, derived.projected);
  context.poll();
  if (conv_)
    conv_->rebuild(mixed_in(derived.projected), derived.convolved, saved.halo, *scratch.conv);
  make_gates(derived);
  kernels::linear_forward(normed_of(saved, derived, scratch.normed), packed_output_, y);
}

void RecurrentMixer::differentiate_gates(const Derived& derived, const Scratch& scratch,
                                         const LayerContext& context) const {
  if (form_.learns_decay) {
    kernels::decay_gates_backward(
        scratch.dgates, form_.has_steps ? scratch.dsteps.view() : TensorView{},
        columns(derived.projected, form_.decay_begin(), form_.num_heads), rate_->value(),
        rate_bias_->value(), columns(scratch.d_projected, form_.decay_begin(), form_.num_heads),
        rate_->gradient(), rate_bias_->gradient());
    context.gradient_ready(*rate_);
    context.gradient_ready(*rate_bias_);
  }
  if (form_.delta)
    kernels::beta_gates_backward(scratch.dbetas, derived.betas, form_.most_beta,
                                 columns(scratch.d_projected, form_.beta_begin(), form_.num_heads));
}

void RecurrentMixer::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                              const MixerRecord& saved_record, const MixerRecord& derived_record,
                              const LayerContext& context) const {
  const auto& saved = dynamic_cast<const Saved&>(saved_record);
  const auto& derived = dynamic_cast<const Derived&>(derived_record);
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  const kernels::Poll poll = [&context] { context.poll(); };
  kernels::linear_backward_weight(dy, normed_of(saved, derived, scratch.normed),
                                  output_->gradient_sum());
  context.gradient_ready(*output_);
  kernels::linear_backward_input(dy, packed_output_, scratch.dout);
  poll();
  if (form_.has_norm) {
    kernels::gated_norm_backward(form_.norm, scratch.dout, saved.out, gate_in(derived.projected),
                                 norm_->value(), scratch.dout, gate_in(scratch.d_projected),
                                 norm_->gradient(), scratch.norm_workspace);
    context.gradient_ready(*norm_);
  }
  const Mixed source = mixed_of(source_of(derived));
  if (local_)
    local_->backward(scratch.dout, saved.out, local_rows(source), saved.local, saved.lse,
                     *scratch.local, context);
  map(source_of(derived), scratch.mapped, scratch.workspace, context);
  const kernels::RecurrenceShape shape = shape_of(form_, scratch);
  const kernels::RecurrenceInputs inputs = inputs_of(scratch.mapped, derived);
  TensorView d_end;
  if (scratch.scan) {
    d_end = scratch.d_end;
    scratch.scan->backward(shape, inputs, outputs_of(saved), scratch.dout, saved.transitions, d_end,
                           scratch.workspace, poll);
  }
  const Mixed d_mapped = mapped_of(scratch.d_mapped);
  const auto wanted = [](const Tensor& tensor) {
    return tensor.empty() ? TensorView{} : tensor.view();
  };
  kernels::recurrence_backward(shape, inputs, states_of(shape, saved), outputs_of(saved),
                               scratch.dout, d_end,
                               {.dq = d_mapped.q,
                                .dk = d_mapped.k,
                                .dv = d_mapped.v,
                                .dgates = wanted(scratch.dgates),
                                .dbetas = wanted(scratch.dbetas),
                                .dsteps = wanted(scratch.dsteps),
                                .dskip = skip_ == nullptr ? TensorView{} : skip_->gradient()},
                               {}, scratch.workspace, poll);
  if (skip_ != nullptr) context.gradient_ready(*skip_);
  turn(d_mapped, kernels::Rotation::backward, context);
  const TensorView d_mixed = mixed_in(scratch.d_projected);
  const TensorView d_convolved =
      scratch.d_source.empty() ? scratch.d_mapped.view() : scratch.d_source.view();
  const Mixed d_source = mixed_of(conv_ ? d_convolved : d_mixed);
  map_backward(d_mapped, source, d_source, scratch.workspace);
  if (local_) local_->add_gradients(local_rows(d_source), *scratch.local);
  if (conv_)
    conv_->backward(d_convolved, mixed_in(derived.projected), d_mixed, saved.halo, *scratch.conv,
                    context);
  differentiate_gates(derived, scratch, context);
  poll();
  kernels::linear_backward_weight(scratch.d_projected, x, in_.gradient_sum());
  context.gradient_ready(in_);
  kernels::linear_backward_input(scratch.d_projected, packed_in_, dx);
}

}  // namespace switchyard
