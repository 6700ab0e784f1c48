#include "model/mixers/causal_convolution.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/rows/elementwise.hpp"
#include "model/parameter_spec.hpp"
#include "tensor/alike.hpp"

namespace switchyard {

namespace {

std::vector<std::vector<PositionRange>> held_by_ranks(const SequenceSplit& split) {
  std::vector<std::vector<PositionRange>> held;
  for (int rank = 0; rank < split.num_ranks(); ++rank) held.push_back(split.segments(rank));
  return held;
}

// Calls each(row of a sequence's x, -1 or row of its halo, row of what is read, count) for the
// positions that are read, in order: own ones have a row of x, others of the halo.
template <class Each>
void for_each_stretch(std::span<const PositionRange> held, std::span<const PositionRange> read,
                      Each&& each) {
  std::int64_t row = 0, own = 0, foreign = 0;
  for (const PositionRange& range : read)
    for (std::int64_t p = range.begin; p < range.end();) {
      const std::int64_t before = count_before(held, p);
      const bool is_own = count_before(held, p + 1) > before;
      std::int64_t end = p + 1;
      while (end < range.end() && (count_before(held, end + 1) > count_before(held, end)) == is_own)
        ++end;
      each(is_own ? own : -1, foreign, row, end - p);
      (is_own ? own : foreign) += end - p;
      row += end - p;
      p = end;
    }
}

// Rows [distance, end) of a tensor become its rows [0, end - distance).
void move_up(const TensorView& rows, std::int64_t distance) {
  for (std::int64_t from = distance; from < rows.rows(); from += distance) {
    const std::int64_t to = std::min(from + distance, rows.rows());
    kernels::copy(rows.slice_rows(from, to), rows.slice_rows(from - distance, to - distance));
  }
}

ParameterSpec bias_spec(std::string name, std::int64_t channels) {
  ParameterSpec spec = weight_spec(std::move(name), {channels}, "model.mixer", 0);
  spec.decay = false;
  spec.initial = Initial::zeros;
  return spec;
}

}  // namespace

std::int64_t most_runs(const Mesh& mesh) {
  return mesh.config().context_split.layout == SequenceLayout::zigzag ? 2 : 1;
}

CausalConvolution::Scratch::Scratch(Device& device, const Mesh& mesh, DType compute,
                                    std::int64_t sequences, const SequenceSplit& split,
                                    std::int64_t channels, std::int64_t width)
    : held(split.segments(mesh.index(Axis::context))),
      read(kernels::convolved_positions(held, width)),
      num_sequences(sequences) {
  const std::int64_t num_read = num_sequences * num_positions(read);
  dx = Tensor(device, Purpose::workspace, DType::f32, {num_read, channels});
  if (split.num_ranks() == 1) return;
  gathered = Tensor(device, Purpose::workspace, compute, {num_read, channels});
  const std::vector<std::vector<PositionRange>> held_all = held_by_ranks(split);
  std::vector<std::vector<PositionRange>> read_all;
  for (const std::vector<PositionRange>& each : held_all)
    read_all.push_back(kernels::convolved_positions(each, width));
  progress.emplace(mesh.config().context_split.progress, device.compute_stream());
  exchange.emplace(mesh.group(Axis::context), held_all, read_all, num_sequences, *progress);
  // Gradients are f32, rows of the compute type at most as wide.
  const std::int64_t row_bytes = channels * size_of(DType::f32);
  messages.outgoing = Tensor(device, Purpose::communication, DType::u8,
                             {std::max(exchange->num_given(), exchange->num_taken()) * row_bytes});
  messages.incoming = Tensor(device, Purpose::communication, DType::u8,
                             {std::max(exchange->num_given(), exchange->num_taken()) * row_bytes});
}

CausalConvolution::CausalConvolution(ParameterStore& store, const std::string& prefix,
                                     std::int64_t channels, std::int64_t width, bool has_bias)
    : device_(store.device()),
      mesh_(store.mesh()),
      channels_(channels),
      width_(width),
      // The deviation of the uniform start within 1 / sqrt(w) that others give it.
      weight_(store.add(weight_spec(prefix + ".conv.weight", {channels, width}, "model.mixer",
                                    1 / std::sqrt(3.0 * static_cast<double>(width))))),
      bias_(has_bias ? &store.add(bias_spec(prefix + ".conv.bias", channels)) : nullptr) {}

Tensor CausalConvolution::make_halo(DType compute, std::int64_t num_sequences) const {
  if (mesh_.degree(Axis::context) == 1) return {};
  return {device_,
          Purpose::activation,
          compute,
          {num_sequences * (width_ - 1) * most_runs(mesh_), channels_}};
}

kernels::ConvolutionShape CausalConvolution::shape_of(const Scratch& scratch) const {
  return {.num_sequences = scratch.num_sequences,
          .held = scratch.held,
          .read = scratch.read,
          .channels = channels_,
          .width = width_,
          .document_starts = scratch.document_starts};
}

TensorView CausalConvolution::with_halo(const TensorView& x, const Tensor& halo,
                                        const Scratch& scratch) const {
  if (!scratch.exchange) return x;
  const std::int64_t num_held = num_positions(scratch.held);
  const std::int64_t num_read = num_positions(scratch.read);
  for_each_alike(device_, scratch.num_sequences, [&](std::int64_t s) {
    for_each_stretch(
        scratch.held, scratch.read,
        [&](std::int64_t own, std::int64_t foreign, std::int64_t row, std::int64_t count) {
          const std::int64_t from =
              own >= 0 ? s * num_held + own : s * (num_read - num_held) + foreign;
          const std::int64_t to = s * num_read + row;
          kernels::copy((own >= 0 ? x : halo.view()).slice_rows(from, from + count),
                        scratch.gathered->slice_rows(to, to + count));
        });
  });
  return scratch.gathered;
}

void CausalConvolution::forward(const TensorView& x, const TensorView& y, const Tensor& halo,
                                Scratch& scratch) const {
  TensorView rows = x;
  if (scratch.exchange) {
    scratch.exchange->gather({&x, 1}, scratch.gathered, scratch.messages);
    rows = scratch.gathered;
    const std::int64_t num_held = num_positions(scratch.held);
    const std::int64_t num_read = num_positions(scratch.read);
    for_each_alike(device_, scratch.num_sequences, [&](std::int64_t s) {
      for_each_stretch(
          scratch.held, scratch.read,
          [&](std::int64_t own, std::int64_t foreign, std::int64_t row, std::int64_t count) {
            if (own >= 0) return;
            const std::int64_t from = s * num_read + row;
            const std::int64_t to = s * (num_read - num_held) + foreign;
            kernels::copy(rows.slice_rows(from, from + count), halo->slice_rows(to, to + count));
          });
    });
  }
  kernels::short_convolution_forward(shape_of(scratch), rows, weight_.value(), bias(), y);
}

void CausalConvolution::rebuild(const TensorView& x, const TensorView& y, const Tensor& halo,
                                Scratch& scratch) const {
  kernels::short_convolution_forward(shape_of(scratch), with_halo(x, halo, scratch),
                                     weight_.value(), bias(), y);
}

void CausalConvolution::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                                 const Tensor& halo, Scratch& scratch,
                                 const LayerContext& context) const {
  kernels::short_convolution_backward(shape_of(scratch), dy, with_halo(x, halo, scratch),
                                      weight_.value(), scratch.dx, weight_.gradient(),
                                      bias_ == nullptr ? TensorView{} : bias_->gradient());
  context.gradient_ready(weight_);
  if (bias_ != nullptr) context.gradient_ready(*bias_);
  if (!scratch.exchange) return kernels::copy(scratch.dx, dx);
  scratch.exchange->bring_home(scratch.dx, scratch.messages);
  scratch.exchange->take_own(scratch.dx, dx);
}

void CausalConvolution::extend(const TensorView& x, const TensorView& y, const Tensor& last,
                               const Tensor& rows, std::int64_t num_cached) const {
  const std::int64_t num_before = std::min(width_ - 1, num_cached);
  const TensorView all = behind_last(x, last, rows, num_before);
  const PositionRange held{num_cached, x.rows()};
  const PositionRange read{num_cached - num_before, all.rows()};
  kernels::short_convolution_forward({.num_sequences = 1,
                                      .held = {&held, 1},
                                      .read = {&read, 1},
                                      .channels = channels_,
                                      .width = width_},
                                     all, weight_.value(), bias(), y);
  keep_last(all, x.rows(), last);
}

TensorView CausalConvolution::behind_last(const TensorView& x, const Tensor& last,
                                          const Tensor& rows, std::int64_t num_before) {
  const std::int64_t num_rows = num_before + x.rows();
  const TensorView all = rows->slice_rows(0, num_rows);
  if (num_before > 0)
    kernels::copy(last->slice_rows(last->rows() - num_before, last->rows()),
                  all.slice_rows(0, num_before));
  kernels::copy(x, all.slice_rows(num_before, num_rows));
  return all;
}

void CausalConvolution::keep_last(const TensorView& rows, std::int64_t num_new,
                                  const Tensor& last) {
  if (last.empty()) return;  // of one tap
  const std::int64_t most = last->rows(), moved = std::min(most, num_new);
  if (moved < most) move_up(last, moved);
  kernels::copy(rows.slice_rows(rows.rows() - moved, rows.rows()),
                last->slice_rows(most - moved, most));
}

}  // namespace switchyard
