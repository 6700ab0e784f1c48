#include "model/mixers/recurrent.hpp"

#include <algorithm>

#include "kernels/recurrence/random_features.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard {

namespace {

Tensor make_workspace(Device& device, const RecurrentForm& form,
                      const kernels::RecurrenceShape& shape) {
  std::int64_t bytes = kernels::recurrence_workspace_bytes(shape, device.target());
  if (form.num_random_features > 0)
    bytes = std::max(bytes, kernels::random_features_workspace_bytes(
                                form.key_width, form.num_random_features, device.target()));
  return {device, Purpose::workspace, DType::u8, {bytes}};
}

}  // namespace

void RecurrentMixer::Saved::for_each_tensor(const RecordVisitor& visit) {
  for (const auto& [name, tensor] : {std::pair{"halo", &halo},
                                     {"states", &states},
                                     {"transitions", &transitions},
                                     {"out", &out},
                                     {"denominators", &denominators},
                                     {"local", &local},
                                     {"lse", &lse}})
    if (!tensor->empty()) visit_tensor(visit, name, *tensor);
}

void RecurrentMixer::Derived::for_each_tensor(const RecordVisitor& visit) {
  for (const auto& [name, tensor] : {std::pair{"projected", &projected},
                                     {"convolved", &convolved},
                                     {"steps", &steps},
                                     {"gates", &gates},
                                     {"betas", &betas}})
    if (!tensor->empty()) visit_tensor(visit, name, *tensor);
}

RecurrentMixer::Scratch::Scratch(Device& device, const Mesh& mesh, const RecurrentForm& form,
                                 DType compute, std::int64_t sequences, const SequenceSplit& split)
    : num_sequences(sequences), held(split.segments(mesh.index(Axis::context))) {
  const std::int64_t num_tokens = num_sequences * num_positions(held);
  const auto rows = [&](DType dtype, std::int64_t cols) {
    return Tensor(device, Purpose::workspace, dtype, {num_tokens, cols});
  };
  if (form.conv > 0)
    conv.emplace(device, mesh, compute, num_sequences, split, form.mixed_cols(), form.conv);
  const kernels::RecurrenceShape shape = recurrence_shape(form, num_sequences, held);
  if (split.num_ranks() > 1) {
    progress.emplace(mesh.config().context_split.progress, device.compute_stream());
    scan.emplace(device, mesh.group(Axis::context), split, most_runs(mesh), shape, *progress);
    d_end = Tensor(device, Purpose::workspace, DType::f32,
                   {shape.num_runs() * num_sequences * form.num_heads, shape.state_size()});
  }
  mapped = rows(compute, form.mapped_cols());
  d_mapped = rows(compute, form.mapped_cols());
  if (form.conv > 0 && !form.maps_in_place()) d_source = rows(compute, form.mixed_cols());
  d_projected = rows(compute, form.num_cols());
  dout = rows(compute, form.value_cols());
  if (form.segment > 0) {
    local.emplace(device, form, compute, num_sequences, held);
    normed = rows(compute, form.value_cols());
  }
  if (form.has_norm) {
    normed = rows(compute, form.value_cols());
    norm_workspace = Tensor(device, Purpose::workspace, DType::u8,
                            {kernels::gated_norm_workspace_bytes(form.norm_weights)});
  }
  if (form.has_steps) dsteps = rows(DType::f32, form.num_heads);
  if (form.learns_decay) dgates = rows(DType::f32, form.num_heads);
  if (form.delta) dbetas = rows(DType::f32, form.num_heads);
  workspace = make_workspace(device, form, shape);
}

void RecurrentMixer::Scratch::set_documents(kernels::DocumentStarts starts) {
  document_starts.assign(starts.begin(), starts.end());
  if (local) local->set_documents(held, document_starts);
  if (conv) conv->document_starts = document_starts;
}

RecurrentMixer::Cache::Cache(Device& device, const RecurrentForm& form, DType compute) {
  const kernels::RecurrenceShape shape = recurrence_shape(form, 1, {});
  state_ = Tensor(device, Purpose::activation, DType::f32, {form.num_heads, shape.state_size()});
  if (form.conv > 1)
    rows_ = Tensor(device, Purpose::activation, compute, {form.conv - 1, form.mixed_cols()});
  if (form.segment > 0)
    for (Tensor* rows : {&keys_, &features_, &values_})
      *rows = Tensor(device, Purpose::activation, compute, {form.segment, form.value_cols()});
  clear();
}

void RecurrentMixer::Cache::clear() {
  kernels::fill_zero(state_);
  if (!rows_.empty()) kernels::fill_zero(rows_);
}

std::unique_ptr<MixerRecord> RecurrentMixer::make_saved(std::int64_t num_tokens,
                                                        std::int64_t num_sequences) const {
  auto saved = std::make_unique<Saved>();
  const auto make = [&](DType dtype, const Shape& shape) {
    return Tensor(device_, Purpose::activation, dtype, shape);
  };
  if (const std::int64_t ranks = mesh_.degree(Axis::context); ranks > 1) {
    const kernels::RecurrenceShape shape = recurrence_shape(form_, num_sequences, {});
    const std::int64_t rows = most_runs(mesh_) * num_sequences * form_.num_heads;
    saved->states = make(DType::f32, {rows, shape.state_size()});
    saved->transitions = make(DType::f32, {ranks * rows, shape.transition_size()});
    if (conv_ && form_.conv > 1) saved->halo = conv_->make_halo(compute_, num_sequences);
  }
  saved->out = make(compute_, {num_tokens, form_.value_cols()});
  if (form_.normalized) saved->denominators = make(DType::f32, {num_tokens, form_.num_heads});
  if (form_.segment > 0) {
    saved->local = make(compute_, {num_tokens, form_.value_cols()});
    saved->lse = make(DType::f32, {num_tokens, form_.num_heads});
  }
  return saved;
}

namespace {

RecurrentMixer::Derived derived_of(Device& device, const RecurrentForm& form, DType compute,
                                   std::int64_t num_tokens, Purpose purpose) {
  RecurrentMixer::Derived derived;
  const auto rows = [&](DType dtype, std::int64_t cols) {
    return Tensor(device, purpose, dtype, {num_tokens, cols});
  };
  derived.projected = rows(compute, form.num_cols());
  if (form.conv > 0) derived.convolved = rows(compute, form.mixed_cols());
  if (form.has_steps) derived.steps = rows(DType::f32, form.num_heads);
  if (form.learns_decay) derived.gates = rows(DType::f32, form.num_heads);
  if (form.delta) derived.betas = rows(DType::f32, form.num_heads);
  return derived;
}

}  // namespace

std::unique_ptr<MixerRecord> RecurrentMixer::make_derived(std::int64_t num_tokens,
                                                          std::int64_t /*num_sequences*/) const {
  return std::make_unique<Derived>(
      derived_of(device_, form_, compute_, num_tokens, Purpose::activation));
}

std::unique_ptr<MixerScratch> RecurrentMixer::make_scratch(std::int64_t num_sequences,
                                                           const SequenceSplit& split) const {
  return std::make_unique<Scratch>(device_, mesh_, form_, compute_, num_sequences, split);
}

std::unique_ptr<MixerCache> RecurrentMixer::make_cache(std::int64_t /*max_length*/,
                                                       std::int64_t /*max_new_tokens*/) const {
  return std::make_unique<Cache>(device_, form_, compute_);
}

RecurrentMixer::ExtendScratch::ExtendScratch(Device& device, const RecurrentForm& form,
                                             DType compute, std::int64_t num_tokens)
    : derived(derived_of(device, form, compute, num_tokens, Purpose::workspace)) {
  const auto rows_of = [&](DType dtype, std::int64_t count, std::int64_t cols) {
    return Tensor(device, Purpose::workspace, dtype, {count, cols});
  };
  saved.out = rows_of(compute, num_tokens, form.value_cols());
  if (form.normalized) saved.denominators = rows_of(DType::f32, num_tokens, form.num_heads);
  if (form.conv > 0) rows = rows_of(compute, form.conv - 1 + num_tokens, form.mixed_cols());
  mapped = rows_of(compute, num_tokens, form.mapped_cols());
  if (form.has_norm || form.segment > 0) normed = rows_of(compute, num_tokens, form.value_cols());
  if (form.segment > 0) {
    local.emplace(device, form, compute, num_tokens);
    saved.local = rows_of(compute, num_tokens, form.value_cols());
    segment.out = rows_of(compute, form.segment, form.value_cols());
    segment.denominators = rows_of(DType::f32, form.segment, form.num_heads);
  }
  const PositionRange run{0, std::max(num_tokens, form.segment)};
  workspace = make_workspace(device, form, recurrence_shape(form, 1, {&run, 1}));
}

std::unique_ptr<MixerScratch> RecurrentMixer::make_extend_scratch(
    std::int64_t num_tokens, std::int64_t /*max_length*/) const {
  return std::make_unique<ExtendScratch>(device_, form_, compute_, num_tokens);
}

}  // namespace switchyard
