#include <cmath>

#include "bench/kernel_cases.hpp"
#include "bench/kernel_operands.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/attention/key_ranges.hpp"
#include "kernels/products/grouped_linear.hpp"
#include "kernels/products/linear.hpp"

namespace switchyard::bench {

std::vector<KernelCall> product_calls(Device& device, std::int64_t rows, std::int64_t out,
                                      std::int64_t in, DType compute) {
  const Held o = operands_on(device);
  const auto weight = std::make_shared<kernels::PackedWeight>(device, out, in, compute);
  const TensorView values = o->make(DType::f32, {out, in}), dw = o->make(DType::f32, {out, in});
  weight->pack(values);
  const TensorView x = o->make(compute, {rows, in}), y = o->make(compute, {rows, out});
  return {owning(
              o, [=] { kernels::linear_forward(x, *weight, y); }, x),
          owning(
              o, [=] { kernels::linear_backward_input(y, *weight, x); }, y),
          owning(
              o, [=] { kernels::linear_backward_weight(y, x, dw); }, y)};
}

std::vector<KernelCall> grouped_calls(Device& device, const GroupedCase& which, DType compute) {
  const auto [groups, groups_of_weights, rows_of_group, out, in] = which;
  const Held o = operands_on(device);
  const auto weights = std::make_shared<std::vector<kernels::PackedWeight>>();
  const TensorView values = o->make(DType::f32, {out, in});
  for (std::int64_t g = 0; g < groups; ++g)
    weights->emplace_back(device, out, in, compute).pack(values);
  kernels::reserve_grouped_linear(device, out, in, compute);
  const auto rows = [&](std::int64_t num_groups, std::int64_t cols) {
    return o->make(compute, {num_groups * rows_of_group, cols});
  };
  const auto offsets = [&](std::int64_t num_groups) {
    const TensorView begins = o->make(DType::i32, {num_groups + 1});
    if (!device.is_plan())
      kernels::write_from_host<std::int32_t>(begins, [&](std::span<std::int32_t> to) {
        for (std::size_t g = 0; g < to.size(); ++g)
          to[g] = static_cast<std::int32_t>(static_cast<std::int64_t>(g) * rows_of_group);
      });
    return begins;
  };
  const TensorView x = rows(groups, in), y = rows(groups, out), begins = offsets(groups);
  const TensorView x_of_weights = rows(groups_of_weights, in),
                   y_of_weights = rows(groups_of_weights, out),
                   begins_of_weights = offsets(groups_of_weights);
  const TensorView dw = o->make(DType::f32, {groups_of_weights, out, in});
  return {owning(
              o, [=] { kernels::grouped_linear_forward(x, *weights, begins, y); }, x),
          owning(
              o, [=] { kernels::grouped_linear_backward_input(y, *weights, begins, x); }, y),
          owning(
              o,
              [=] {
                kernels::grouped_linear_backward_weight(y_of_weights, x_of_weights,
                                                        begins_of_weights, dw);
              },
              y_of_weights)};
}

std::vector<KernelCall> attention_calls(Device& device, const AttentionCase& which, DType compute) {
  constexpr std::int64_t num_heads = 8;
  const std::int64_t num_kv_heads = num_heads / which.group;
  const std::int64_t num_queries = which.num_sequences * which.query_length;
  const std::int64_t num_keys = which.num_sequences * which.key_length;
  const Held o = operands_on(device);
  kernels::AttentionShape shape;
  shape.num_sequences = which.num_sequences;
  shape.query_length = which.query_length;
  shape.key_length = which.key_length;
  shape.num_heads = num_heads;
  shape.num_kv_heads = num_kv_heads;
  shape.head_dim = which.head_dim;
  shape.scale = 1.0f / std::sqrt(static_cast<float>(which.head_dim));
  const auto queries = [&] { return o->make(compute, {num_queries, num_heads * which.head_dim}); };
  const auto keys = [&] { return o->make(compute, {num_keys, num_kv_heads * which.head_dim}); };
  const TensorView q = queries(), out = queries(), dout = queries(), dq = queries();
  const TensorView k = keys(), v = keys(), dk = keys(), dv = keys();
  const TensorView lse = o->make(DType::f32, {num_queries, num_heads});
  const TensorView delta = o->make(DType::f32, {num_queries, num_heads});
  const TensorView workspace =
      o->make(DType::u8, {kernels::attention_workspace_bytes(shape, compute, device.target())});
  const kernels::KeyRanges ranges = kernels::causal_ranges(
      {.num_sequences = which.num_sequences,
       .query_length = which.query_length,
       .key_length = which.key_length,
       .query_offset = which.is_causal ? 0 : which.key_length - 1,
       .window = which.window},
      o->make(DType::i32, {num_queries}), o->make(DType::i32, {num_queries}));
  const auto forward = [=] {
    kernels::attention_forward(shape, q, k, v, ranges, out, lse, kernels::Merge::replace,
                               workspace);
  };
  if (!device.is_plan()) forward();  // the backward pass reads its results
  return {owning(o, forward, q), owning(
                                     o,
                                     [=] {
                                       kernels::attention_backward(shape, q, k, v, ranges, lse,
                                                                   delta, dout, {dq, dk, dv},
                                                                   workspace);
                                     },
                                     dout)};
}

}  // namespace switchyard::bench
