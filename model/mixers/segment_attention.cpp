#include "model/mixers/segment_attention.hpp"

#include <algorithm>

#include "kernels/host_copy.hpp"
#include "kernels/recurrence/memory_gate.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/parameter_spec.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

kernels::AttentionShape attention_shape(const RecurrentForm& form, std::int64_t num_sequences,
                                        std::int64_t queries, std::int64_t keys) {
  return {.num_sequences = num_sequences,
          .query_length = queries,
          .key_length = keys,
          .num_heads = form.num_heads,
          .num_kv_heads = form.num_heads,
          .head_dim = form.key_width,
          .scale = form.scale};
}

Tensor workspace_of(Device& device, const kernels::AttentionShape& shape, DType compute) {
  return {device,
          Purpose::workspace,
          DType::u8,
          {kernels::attention_workspace_bytes(shape, compute, device.target())}};
}

// For each row that is held of a sequence, the first row that it sees: of its segment, or of its
// document if that begins later.
std::vector<std::int32_t> first_rows(const std::vector<PositionRange>& held, std::int64_t segment,
                                     const std::vector<std::int32_t>& starts) {
  std::vector<std::int32_t> first;
  std::int64_t row = 0;
  for (const PositionRange& run : held) {
    auto next = std::ranges::lower_bound(starts, run.begin);
    std::int64_t seen_from = row;
    for (std::int64_t position = run.begin; position < run.end(); ++position, ++row) {
      const bool begins = next != starts.end() && *next == position;
      if (begins) ++next;
      if (begins || position % segment == 0) seen_from = row;
      first.push_back(static_cast<std::int32_t>(seen_from));
    }
  }
  return first;
}

}  // namespace

SegmentAttention::Scratch::Scratch(Device& device, const RecurrentForm& form, DType compute,
                                   std::int64_t num_sequences,
                                   const std::vector<PositionRange>& held)
    : segment(form.segment),
      shape(attention_shape(form, num_sequences, num_positions(held), num_positions(held))) {
  for (const PositionRange& run : held)
    expect(run.begin % segment == 0, "runs that begin with a segment");
  const std::int64_t num_tokens = num_sequences * num_positions(held);
  const auto rows = [&](DType dtype, std::int64_t cols) {
    return Tensor(device, Purpose::workspace, dtype, {num_tokens, cols});
  };
  first = Tensor(device, Purpose::workspace, DType::i32, {num_tokens});
  end = Tensor(device, Purpose::workspace, DType::i32, {num_tokens});
  turned = rows(compute, 2 * form.value_cols());
  d_turned = rows(compute, 2 * form.value_cols());
  dv = rows(compute, form.value_cols());
  d_local = rows(compute, form.value_cols());
  delta = rows(DType::f32, form.num_heads);
  workspace = workspace_of(device, shape, compute);
  set_documents(held, {});
}

void SegmentAttention::Scratch::set_documents(const std::vector<PositionRange>& held,
                                              kernels::DocumentStarts starts) {
  std::vector<std::int32_t> firsts, ends;
  num_pairs = 0;
  for (std::int64_t s = 0; s < shape.num_sequences; ++s) {
    const std::vector<std::int32_t> own = first_rows(
        held, segment,
        starts.empty() ? std::vector<std::int32_t>{} : starts[static_cast<std::size_t>(s)]);
    for (std::size_t row = 0; row < own.size(); ++row) {
      firsts.push_back(own[row]);
      ends.push_back(static_cast<std::int32_t>(row + 1));
      num_pairs += static_cast<double>(ends.back() - own[row]);
    }
  }
  kernels::copy_from_host<std::int32_t>(firsts, first);
  kernels::copy_from_host<std::int32_t>(ends, end);
}

kernels::KeyRanges SegmentAttention::Scratch::ranges() const {
  return {.first = first, .end = end, .num_pairs = num_pairs};
}

SegmentAttention::ExtendScratch::ExtendScratch(Device& device, const RecurrentForm& form,
                                               DType compute, std::int64_t num_tokens) {
  const auto rows = [&](DType dtype, std::int64_t cols) {
    return Tensor(device, Purpose::workspace, dtype, {num_tokens, cols});
  };
  first = Tensor(device, Purpose::workspace, DType::i32, {num_tokens});
  end = Tensor(device, Purpose::workspace, DType::i32, {num_tokens});
  turned = rows(compute, 2 * form.value_cols());
  lse = rows(DType::f32, form.num_heads);
  workspace = workspace_of(
      device, attention_shape(form, 1, std::min(num_tokens, form.segment), form.segment), compute);
}

SegmentAttention::SegmentAttention(ParameterStore& store, const std::string& prefix,
                                   const RecurrentForm& form)
    : form_(form),
      gate_(store.add(
          bias_spec(prefix + ".memory_gate", form.num_heads, "model.mixer, model.num_heads"))) {
  expect(form.key_width == form.value_width && form.num_groups == form.num_heads,
         "queries, keys and values of one width for every head");
}

// Queries and keys as they are attended with.
TensorView SegmentAttention::turned_of(const Rows& rows, const Tensor& turned,
                                       const LayerContext& context,
                                       const TensorView& rotary_positions) const {
  const std::int64_t cols = form_.value_cols();
  const TensorView to = turned->slice_rows(0, rows.q.rows());
  kernels::copy(rows.q, to.slice_cols(0, cols));
  kernels::copy(rows.k, to.slice_cols(cols, 2 * cols));
  if (form_.local_rotates)
    kernels::rope(to, context.rope, rotary_positions, form_.key_width, kernels::Rotation::forward);
  return to;
}

void SegmentAttention::forward(const Rows& rows, const TensorView& local, const TensorView& lse,
                               Scratch& scratch, const LayerContext& context) const {
  const std::int64_t cols = form_.value_cols();
  const TensorView turned = turned_of(rows, scratch.turned, context, context.pass.rotary_positions);
  kernels::attention_forward(scratch.shape, turned.slice_cols(0, cols),
                             turned.slice_cols(cols, 2 * cols), rows.v, scratch.ranges(), local,
                             lse, kernels::Merge::replace, scratch.workspace,
                             [&context] { context.poll(); });
}

void SegmentAttention::mix(const TensorView& memory, const TensorView& local,
                           const TensorView& out) const {
  kernels::memory_gate_forward(memory, local, gate_.value(), out);
}

void SegmentAttention::backward(const TensorView& dout, const TensorView& memory, const Rows& rows,
                                const TensorView& local, const TensorView& lse, Scratch& scratch,
                                const LayerContext& context) const {
  const std::int64_t cols = form_.value_cols();
  kernels::memory_gate_backward(dout, memory, local, gate_.value(), dout, scratch.d_local,
                                gate_.gradient());
  context.gradient_ready(gate_);
  const TensorView turned = turned_of(rows, scratch.turned, context, context.pass.rotary_positions);
  kernels::attention_delta(local, scratch.d_local, form_.key_width, scratch.delta);
  kernels::attention_backward(scratch.shape, turned.slice_cols(0, cols),
                              turned.slice_cols(cols, 2 * cols), rows.v, scratch.ranges(), lse,
                              scratch.delta, scratch.d_local,
                              {.dq = scratch.d_turned->slice_cols(0, cols),
                               .dk = scratch.d_turned->slice_cols(cols, 2 * cols),
                               .dv = scratch.dv},
                              scratch.workspace, [&context] { context.poll(); });
  if (form_.local_rotates)
    kernels::rope(scratch.d_turned, context.rope, context.pass.rotary_positions, form_.key_width,
                  kernels::Rotation::backward);
}

void SegmentAttention::add_gradients(const Rows& to, const Scratch& scratch) const {
  const std::int64_t cols = form_.value_cols();
  kernels::add(to.q, scratch.d_turned->slice_cols(0, cols), to.q);
  kernels::add(to.k, scratch.d_turned->slice_cols(cols, 2 * cols), to.k);
  kernels::add(to.v, scratch.dv, to.v);
}

void SegmentAttention::extend(const Rows& rows, std::int64_t offset, const TensorView& keys,
                              const TensorView& values, const TensorView& local,
                              const ExtendScratch& scratch, const LayerContext& context,
                              const TensorView& rotary_positions) const {
  const std::int64_t cols = form_.value_cols(), count = rows.q.rows(), known = offset + count;
  const TensorView turned = turned_of(rows, scratch.turned, context, rotary_positions);
  kernels::copy(turned.slice_cols(cols, 2 * cols), keys.slice_rows(offset, known));
  kernels::copy(rows.v, values.slice_rows(offset, known));
  const kernels::KeyRanges ranges = kernels::causal_ranges(
      {.num_sequences = 1, .query_length = count, .key_length = known, .query_offset = offset},
      scratch.first->slice_rows(0, count), scratch.end->slice_rows(0, count));
  kernels::attention_forward(attention_shape(form_, 1, count, known), turned.slice_cols(0, cols),
                             keys.slice_rows(0, known), values.slice_rows(0, known), ranges, local,
                             scratch.lse->slice_rows(0, count), kernels::Merge::replace,
                             scratch.workspace);
}

}  // namespace switchyard
