#include "parallel/context/ring_attention.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/alike.hpp"
#include "tensor/error.hpp"

namespace switchyard {

std::int64_t RingAttention::block_length(std::span<const std::vector<PositionRange>> held) {
  std::int64_t most = 0;
  for (const std::vector<PositionRange>& segments : held)
    most = std::max(most, num_positions(segments));
  return most;
}

std::int64_t RingAttention::num_first_queries(std::int64_t num_local, std::int64_t element_bytes) {
  const double b = static_cast<double>(element_bytes);
  const double share = b / (b + static_cast<double>(size_of(DType::f32)));
  // The pairs of the first of n queries grow with the square of their number.
  const double first = std::round(static_cast<double>(num_local) * std::sqrt(share));
  return std::max<std::int64_t>(static_cast<std::int64_t>(first), 1);
}

RingAttention::RingAttention(Group& group, PartAttention& kernel,
                             std::vector<std::vector<PositionRange>> held,
                             ExchangeProgress& progress)
    : group_(group),
      kernel_(kernel),
      progress_(progress),
      held_(std::move(held)),
      block_length_(block_length(held_)) {
  expect(std::ssize(held_) == group.size(), "the segments of each rank of the group");
  num_local_ = num_positions(held_[static_cast<std::size_t>(group.rank())]);
  const AttentionSizes& sizes = kernel.sizes();
  Device& device = kernel.device();
  const std::int64_t block_rows = sizes.num_sequences * block_length_;
  sums_ = Tensor(device, Purpose::workspace, DType::f32,
                 {sizes.num_sequences * num_local_, sizes.query_cols()});
  for (Tensor& block : blocks_)
    block = Tensor(device, Purpose::communication, kernel.compute(),
                   {block_rows, 2 * sizes.key_cols()});
  for (Tensor& block : gradients_)
    block = Tensor(device, Purpose::communication, DType::f32, {block_rows, 2 * sizes.key_cols()});
  own_gradients_ = Tensor(device, Purpose::communication, DType::f32,
                          {sizes.num_sequences * num_local_, 2 * sizes.key_cols()});
}

AttentionPart RingAttention::part_of(int step, const kernels::KeyPattern& pattern) const {
  return {.queries = held_[static_cast<std::size_t>(group_.rank())],
          .keys = held_[static_cast<std::size_t>(source(step))],
          .key_length = block_length_,
          .pattern = pattern};
}

AttentionInputs RingAttention::inputs_with(const AttentionInputs& inputs,
                                           const TensorView& block) const {
  const std::int64_t cols = kernel_.sizes().key_cols();
  return {inputs.q, block.slice_cols(0, cols), block.slice_cols(cols, 2 * cols), inputs.bias};
}

void RingAttention::pack(const AttentionInputs& inputs, const TensorView& block) const {
  const AttentionInputs packed = inputs_with(inputs, block);
  for_each_alike(kernel_.device(), kernel_.sizes().num_sequences, [&](std::int64_t s) {
    const std::int64_t from = s * num_local_;
    const std::int64_t to = s * block_length_;
    kernels::copy(inputs.k.slice_rows(from, from + num_local_),
                  packed.k.slice_rows(to, to + num_local_));
    kernels::copy(inputs.v.slice_rows(from, from + num_local_),
                  packed.v.slice_rows(to, to + num_local_));
    if (num_local_ < block_length_)
      kernels::fill_zero(block.slice_rows(to + num_local_, to + block_length_));
  });
}

void RingAttention::unpack(const TensorView& block, const AttentionRowGradients& gradients) const {
  for_each_alike(kernel_.device(), kernel_.sizes().num_sequences, [&](std::int64_t s) {
    const std::int64_t from = s * block_length_;
    const TensorView sum = own_gradients_->slice_rows(s * num_local_, (s + 1) * num_local_);
    kernels::add(block.slice_rows(from, from + num_local_), sum, sum);
  });
  const AttentionInputs sums = inputs_with({}, own_gradients_);
  kernels::copy(sums.k, gradients.k);
  kernels::copy(sums.v, gradients.v);
}

void RingAttention::forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
                            const AttentionInputs& inputs, const TensorView& out,
                            const TensorView& lse, const kernels::Poll& poll) {
  TensorView held = blocks_[0];
  TensorView arriving = blocks_[1];
  pack(inputs, held);
  Event nothing;
  for (int step = 0; step < group_.size(); ++step) {
    const bool travels = step + 1 < group_.size();
    Event travel =
        travels ? group_.start_send_receive(held, next(), arriving, previous()) : Event();
    progress_.during(travel, nothing, poll, [&](const kernels::Poll& advance) {
      kernel_.forward(part_of(step, pattern), inputs_with(inputs, held), sums_, lse,
                      step == 0 ? kernels::Merge::replace : kernels::Merge::with_before, advance);
    });
    progress_.wait(travel);
    std::swap(held, arriving);
  }
  if (!sinks.empty()) kernels::attention_sink_forward(sinks, kernel_.sizes().head_dim, sums_, lse);
  kernels::copy(sums_, out);
}

void RingAttention::differentiate_own(const kernels::KeyPattern& pattern, std::int64_t begin,
                                      std::int64_t end, const AttentionInputs& inputs,
                                      const AttentionResults& results, const TensorView& dbias,
                                      Event& in_flight, const kernels::Poll& poll) {
  const kernels::Merge merge = begin == 0 ? kernels::Merge::replace : kernels::Merge::with_before;
  const AttentionInputs own = inputs_with({}, own_gradients_);
  AttentionPart part = part_of(0, pattern);
  part.key_length = num_local_;
  part.first_query = begin;
  part.end_query = end;
  Event nothing;
  progress_.during(in_flight, nothing, poll, [&](const kernels::Poll& advance) {
    kernel_.backward(part, inputs, results,
                     {.dq = sums_,
                      .dk = own.k,
                      .dv = own.v,
                      .dq_merge = merge,
                      .dkv_merge = merge,
                      .dbias = dbias},
                     advance);
  });
}

void RingAttention::backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                             const AttentionResults& results,
                             const AttentionRowGradients& gradients, const kernels::Poll& poll) {
  TensorView held = blocks_[0];
  TensorView arriving = blocks_[1];
  pack(inputs, held);
  const auto send_keys = [&] {
    return group_.start_send_receive(held, next(), arriving, previous());
  };
  Event travel = send_keys();
  const std::int64_t num_first = num_first_queries(num_local_, size_of(kernel_.compute()));
  differentiate_own(pattern, 0, num_first, inputs, results, gradients.bias, travel, poll);

  TensorView computed = gradients_[0];
  TensorView received = gradients_[1];  // being, until `follow` is over
  TensorView sent = gradients_[2];      // likewise
  Event follow;                         // the gradients, one step behind the keys
  for (int step = 1; step < group_.size(); ++step) {
    progress_.wait(travel);
    std::swap(held, arriving);
    if (step + 1 < group_.size()) travel = send_keys();
    bool has_pairs = false;
    progress_.during(travel, follow, poll, [&](const kernels::Poll& advance) {
      const AttentionInputs block = inputs_with({}, computed);
      has_pairs = kernel_.backward(part_of(step, pattern), inputs_with(inputs, held), results,
                                   {.dq = sums_,
                                    .dk = block.k,
                                    .dv = block.v,
                                    .dq_merge = kernels::Merge::with_before,
                                    .dkv_merge = kernels::Merge::replace,
                                    .dbias = gradients.bias},
                                   advance);
    });
    progress_.wait(follow);
    if (step == 1 && !has_pairs)
      kernels::fill_zero(computed);
    else if (step > 1 && !has_pairs)
      std::swap(computed, received);  // what arrived goes on as it is
    else if (step > 1)
      kernels::add(received, computed, computed);
    follow = group_.start_send_receive(computed, next(), sent, previous());
    std::swap(received, sent);
    std::swap(computed, sent);  // computed is free again
  }
  if (num_first < num_local_)
    differentiate_own(pattern, num_first, num_local_, inputs, results, gradients.bias, follow,
                      poll);
  progress_.wait(follow);
  unpack(received, gradients);
  kernels::copy(sums_, gradients.q);
}

}  // namespace switchyard
