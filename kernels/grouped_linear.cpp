#include "kernels/grouped_linear.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/cpu/grouped_linear.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/grouped_linear.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels {

namespace {

void expect_groups(std::span<const std::int64_t> offsets, std::int64_t rows) {
  expect(!offsets.empty() && offsets.front() == 0 && offsets.back() == rows &&
             std::ranges::is_sorted(offsets),
         "offsets that ascend from 0 to the number of rows");
}

void expect_weights(std::span<const PackedWeight> weights, std::span<const std::int64_t> offsets,
                    DType compute, std::int64_t out, std::int64_t in) {
  expect(weights.size() + 1 == offsets.size(), "a weight for each group");
  for (const PackedWeight& weight : weights)
    expect(weight.compute_dtype() == compute && weight.out_features() == out &&
               weight.in_features() == in,
           "weights of one shape and of the operands' type");
}

}  // namespace

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            std::span<const std::int64_t> offsets, const TensorView& y) {
  expect_groups(offsets, x.rows());
  expect_weights(weights, offsets, x.dtype, y.cols(), x.cols());
  expect(y.rows() == x.rows() && (y.dtype == x.dtype || y.dtype == DType::f32),
         "y: [rows, out] of the compute type or f32");
  if (x.empty()) return;
  dispatch(
      *x.device, [&] { cpu::grouped_linear_forward(x, weights, offsets, y); },
      [&] { plan::grouped_linear_forward(x, weights, offsets, y); });
}

void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   std::span<const std::int64_t> offsets, const TensorView& dx,
                                   Accumulate accumulate) {
  expect_groups(offsets, dy.rows());
  expect_weights(weights, offsets, dy.dtype, dy.cols(), dx.cols());
  expect(dx.rows() == dy.rows() && (dx.dtype == dy.dtype || dx.dtype == DType::f32),
         "dx: [rows, in] of the compute type or f32");
  for (const PackedWeight& weight : weights)
    expect(!weight.backward_layout().empty(), "weights packed for the backward product");
  if (dy.empty()) return;
  dispatch(
      *dy.device, [&] { cpu::grouped_linear_backward_input(dy, weights, offsets, dx, accumulate); },
      [&] { plan::grouped_linear_backward_input(dy, weights, offsets, dx, accumulate); });
}

void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    std::span<const std::int64_t> offsets, const TensorView& dw) {
  expect_groups(offsets, dy.rows());
  expect(is_float(dy.dtype) && x.dtype == dy.dtype && x.rows() == dy.rows(),
         "dy and x: as many rows, f32 or bf16 alike");
  expect(dw.dtype == DType::f32 && dw.is_contiguous() &&
             dw.shape == Shape({std::ssize(offsets) - 1, dy.cols(), x.cols()}),
         "a contiguous dw: f32 [groups, out, in]");
  if (dy.empty() || x.empty()) return;
  dispatch(
      *dy.device, [&] { cpu::grouped_linear_backward_weight(dy, x, offsets, dw); },
      [&] { plan::grouped_linear_backward_weight(dy, x, offsets, dw); });
}

void reserve_grouped_linear(Device& device, std::int64_t out_features, std::int64_t in_features,
                            DType compute) {
  device.kernel_scratch(cpu::product_scratch_bytes(
      {.out = out_features, .in = in_features, .compute = compute, .is_grouped = true},
      num_threads_of(device)));
}

std::vector<RowBlock> row_blocks(std::span<const std::int64_t> offsets, std::int64_t most_rows,
                                 std::int64_t step) {
  expect(step >= 1 && most_rows >= step, "blocks that hold a step");
  std::vector<RowBlock> blocks;
  for (std::size_t group = 0; group + 1 < offsets.size(); ++group)
    for (std::int64_t at = offsets[group]; at < offsets[group + 1];) {
      const std::int64_t left = offsets[group + 1] - at;
      const std::int64_t room = blocks.empty() ? 0 : most_rows - (at - blocks.back().begin);
      if (room < std::min(left, step)) {  // the next block begins with this group
        blocks.push_back({at, at, group, {0}});
        continue;
      }
      const std::int64_t rows = left <= room ? left : room / step * step;
      RowBlock& block = blocks.back();
      while (block.first_group + block.num_groups() < group)  // empty groups, and that before
        block.offsets.push_back(block.end - block.begin);
      block.offsets.push_back(at + rows - block.begin);
      block.end = at += rows;
    }
  return blocks;
}

std::int64_t block_rows(int num_threads) {
  constexpr std::int64_t rows_of_thread = 256, most = 4096;
  return std::min(rows_of_thread * num_threads, most);
}

}  // namespace switchyard::kernels
