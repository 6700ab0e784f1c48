#include "experts/token_projection.hpp"

#include <algorithm>
#include <utility>

#include "kernels/routing/router_noise.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/alike.hpp"

namespace switchyard {

namespace {

// Rows that are converted to f32 at once: whole row blocks of the products.
constexpr std::int64_t block_rows = 16 * kernels::row_block;

// x itself if it is f32, else its copy in `room`.
TensorView as_f32(const TensorView& x, const Tensor& room) {
  if (x.dtype == DType::f32) return x;
  const TensorView converted = room->slice_rows(0, x.rows());
  kernels::copy(x, converted);
  return converted;
}

// The input of the projection for the tokens from `begin` on. A room for jitter has two blocks.
TensorView input(const TensorView& x, std::int64_t begin, const Tensor& room,
                 const Jitter& jitter) {
  if (jitter.epsilon == 0) return as_f32(x, room);
  const TensorView copied = room->slice_rows(0, x.rows());
  kernels::copy(x, copied);
  kernels::jitter(copied, begin, jitter.epsilon, jitter.site, jitter.sequence_ids);
  return copied;
}

TensorView second_block(const Tensor& room, std::int64_t num_rows) {
  const std::int64_t begin = room->rows() / 2;
  return room->slice_rows(begin, begin + num_rows);
}

}  // namespace

TokenProjection::TokenProjection(ParameterStore& store, ParameterSpec spec)
    : weight_(store.add(std::move(spec))),
      packed_(store.device(), weight_.spec().global_shape[0], weight_.spec().global_shape[1],
              DType::f32) {}

Tensor TokenProjection::make_room(Device& device, std::int64_t num_tokens, std::int64_t hidden,
                                  DType compute) {
  if (compute == DType::f32) return {};
  return Tensor(device, Purpose::workspace, DType::f32, {std::min(num_tokens, block_rows), hidden});
}

Tensor TokenProjection::make_jitter_room(Device& device, std::int64_t num_tokens,
                                         std::int64_t hidden) {
  return Tensor(device, Purpose::workspace, DType::f32,
                {2 * std::min(num_tokens, block_rows), hidden});
}

void TokenProjection::pack_weights() {
  packed_.pack(weight_.value());
}

void TokenProjection::forward(const TensorView& x, const TensorView& out, const Tensor& room,
                              const Jitter& jitter) const {
  for_each_row_piece(*x.device, x.rows(), block_rows, [&](std::int64_t begin, std::int64_t end) {
    kernels::linear_forward(input(x.slice_rows(begin, end), begin, room, jitter), packed_,
                            out.slice_rows(begin, end));
  });
}

void TokenProjection::backward(const TensorView& dout, const TensorView& x, const TensorView& dx,
                               const Tensor& room, const Pass& pass, const Jitter& jitter) const {
  const kernels::GradientSum gradient = weight_.gradient_sum();
  const auto run_block = [&](std::int64_t begin, std::int64_t end) {
    const TensorView dout_rows = dout.slice_rows(begin, end);
    const TensorView dx_rows = dx.slice_rows(begin, end);
    kernels::linear_backward_weight(dout_rows, input(x.slice_rows(begin, end), begin, room, jitter),
                                    gradient);
    // The sum is taken in fp32 and rounded once.
    const TensorView dx_f32 = as_f32(dx_rows, room);
    if (jitter.epsilon == 0) {
      kernels::linear_backward_input(dout_rows, packed_, dx_f32, kernels::Accumulate::yes);
    } else {
      const TensorView through = second_block(room, end - begin);
      kernels::linear_backward_input(dout_rows, packed_, through);
      kernels::jitter(through, begin, jitter.epsilon, jitter.site, jitter.sequence_ids);
      kernels::add(dx_f32, through, dx_f32);
    }
    if (dx.dtype != DType::f32) kernels::copy(dx_f32, dx_rows);
  };
  kernels::for_each_piece_of_units(*x.device, x.rows(), gradient.unit_rows(), block_rows,
                                   run_block);
  pass.gradient_ready(weight_);
}

}  // namespace switchyard
