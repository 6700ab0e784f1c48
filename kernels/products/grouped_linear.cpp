#include "kernels/products/grouped_linear.hpp"

#include <algorithm>
#include <vector>

#include "kernels/check.hpp"
#include "kernels/cpu/products/grouped_linear.hpp"
#include "kernels/cuda/products/grouped_linear.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/grouped_linear.hpp"
#include "kernels/threads.hpp"
#include "tensor/alike.hpp"

namespace switchyard::kernels {

namespace {

void expect_offsets(const TensorView& offsets, std::int64_t num_groups) {
  expect_vector(offsets, DType::i32, num_groups + 1, "offsets: i32 [groups + 1]");
}

void expect_weights(std::span<const PackedWeight> weights, DType compute, std::int64_t out,
                    std::int64_t in) {
  for (const PackedWeight& weight : weights)
    expect(weight.compute_dtype() == compute && weight.out_features() == out &&
               weight.in_features() == in,
           "weights of one shape and of the operands' type");
}

// One group that has all rows.
bool is_whole(const TensorView& offsets, std::int64_t num_groups) {
  if (offsets.device != nullptr) return false;
  expect(num_groups == 1, "offsets, unless there is one group");
  return true;
}

}  // namespace

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& offsets, const TensorView& y) {
  if (is_whole(offsets, std::ssize(weights))) return linear_forward(x, weights.front(), y);
  expect_offsets(offsets, std::ssize(weights));
  expect_weights(weights, x.dtype, y.cols(), x.cols());
  expect(y.rows() == x.rows() && (y.dtype == x.dtype || y.dtype == DType::f32),
         "y: [rows, out] of the compute type or f32");
  if (x.empty() || weights.empty()) return;
  dispatch(
      *x.device, [&] { cpu::grouped_linear_forward(x, weights, offsets, y); },
      [&] { plan::grouped_linear_forward(x, weights, y); },
      [&] { cuda::grouped_linear_forward(x, weights, offsets, y); });
}

void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& offsets, const TensorView& dx,
                                   Accumulate accumulate) {
  if (is_whole(offsets, std::ssize(weights)))
    return linear_backward_input(dy, weights.front(), dx, accumulate);
  expect_offsets(offsets, std::ssize(weights));
  expect_weights(weights, dy.dtype, dy.cols(), dx.cols());
  expect(dx.rows() == dy.rows() && (dx.dtype == dy.dtype || dx.dtype == DType::f32),
         "dx: [rows, in] of the compute type or f32");
  for (const PackedWeight& weight : weights)
    expect(!weight.backward_layout().empty(), "weights packed for the backward product");
  if (dy.empty() || weights.empty()) return;
  dispatch(
      *dy.device, [&] { cpu::grouped_linear_backward_input(dy, weights, offsets, dx, accumulate); },
      [&] { plan::grouped_linear_backward_input(dy, weights, dx, accumulate); },
      [&] { cuda::grouped_linear_backward_input(dy, weights, offsets, dx, accumulate); });
}

void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& offsets, const GradientSum& dw) {
  const std::int64_t num_groups = dw.view.shape[0];
  expect(is_float(dy.dtype) && x.dtype == dy.dtype && x.rows() == dy.rows(),
         "dy and x: as many rows, f32 or bf16 alike");
  expect(dw.view.shape == Shape({num_groups, dy.cols(), x.cols()}), "dw: [groups, out, in]");
  expect_gradient(dw, dw.view.numel(), "dw: f32 or i64");
  if (is_whole(offsets, num_groups)) return linear_backward_weight(dy, x, dw.at(dw.view[0]));
  if (num_groups > 0 && dw.is_exact())
    expect(offsets.numel() % num_groups == 1 % num_groups,
           "offsets of as many units of each group");
  expect_offsets(offsets, dw.is_exact() ? offsets.numel() - 1 : num_groups);
  if (dy.empty() || x.empty() || num_groups == 0) return;
  dispatch(
      *dy.device, [&] { cpu::grouped_linear_backward_weight(dy, x, offsets, dw); },
      [&] { plan::grouped_linear_backward_weight(dy, x, dw.view); },
      [&] { cuda::grouped_linear_backward_weight(dy, x, offsets, in_fp32(dw)); });
}

void reserve_grouped_linear(Device& device, std::int64_t out_features, std::int64_t in_features,
                            DType compute) {
  if (device.target().device == DeviceKind::cuda) return;  // they take none there
  device.kernel_scratch(cpu::product_scratch_bytes(
      {.out = out_features, .in = in_features, .compute = compute, .is_grouped = true},
      num_threads_of(device)));
}

std::int64_t block_rows(const Device& device) {
  if (device.target().device == DeviceKind::cuda) return all_rows;
  constexpr std::int64_t rows_of_thread = 256, most = 4096;
  return std::min(rows_of_thread * num_threads_of(device), most);
}

namespace {

struct Cut {
  std::int64_t begin;  // rows
  std::int64_t end;
  std::int64_t first_group;
  std::vector<std::int64_t> offsets;  // counted from `begin`
  std::int64_t count = 1;             // such blocks, one behind the other in one group
  std::int64_t num_groups() const { return std::ssize(offsets) - 1; }
};

std::vector<Cut> cut_rows(std::span<const std::int64_t> offsets, std::int64_t most_rows,
                          std::int64_t step) {
  std::vector<Cut> blocks;
  for (std::int64_t group = 0; group + 1 < std::ssize(offsets); ++group) {
    const std::int64_t end = offsets[static_cast<std::size_t>(group) + 1];
    for (std::int64_t at = offsets[static_cast<std::size_t>(group)]; at < end;) {
      const std::int64_t left = end - at;
      const std::int64_t room = blocks.empty() ? 0 : most_rows - (at - blocks.back().begin);
      if (room < std::min(left, step)) {  // the next block begins with this group
        if (left > most_rows) {           // full ones, as long as more than the last is left
          const std::int64_t full = most_rows / step * step;
          const std::int64_t count = (left - most_rows + full - 1) / full;
          blocks.push_back({at, at + full, group, {0, full}, count});
          at += count * full;
        }
        blocks.push_back({at, at, group, {0}});
        continue;
      }
      const std::int64_t rows = left <= room ? left : room / step * step;
      Cut& block = blocks.back();
      while (block.first_group + block.num_groups() < group)  // empty groups, and that before
        block.offsets.push_back(block.end - block.begin);
      block.offsets.push_back(at + rows - block.begin);
      block.end = at += rows;
    }
  }
  return blocks;
}

}  // namespace

void for_each_row_block(Device& device, const TensorView& offsets, std::int64_t num_rows,
                        std::int64_t num_groups, std::int64_t most_rows, std::int64_t step,
                        const TensorView& block_offsets,
                        const std::function<void(const RowBlock&)>& visit) {
  expect(step >= 1 && most_rows >= step, "blocks that hold a step");
  if (num_rows == 0 || num_groups == 0) return;
  const bool is_one_group = is_whole(offsets, num_groups);
  if (!is_one_group) expect_offsets(offsets, num_groups);
  if (most_rows == all_rows) return visit({0, num_rows, 0, num_groups, offsets});
  const std::vector<std::int64_t> bounds =
      is_one_group ? std::vector<std::int64_t>{0, num_rows}
                   : dispatch(
                         device, [&] { return cpu::read_offsets(offsets, num_rows); },
                         [&] { return plan::even_offsets(num_groups, num_rows); });
  for (const Cut& cut : cut_rows(bounds, most_rows, step)) {
    RowBlock block{cut.begin, cut.end, cut.first_group, cut.num_groups(), {}};
    if (!is_one_group) {
      block.offsets = block_offsets.slice_rows(0, std::ssize(cut.offsets));
      dispatch(
          device, [&] { cpu::write_offsets(cut.offsets, block.offsets); }, [] {});
    }
    for_each_alike(device, cut.count, [&](std::int64_t i) {
      block.begin = cut.begin + i * (cut.end - cut.begin);
      block.end = block.begin + (cut.end - cut.begin);
      visit(block);
    });
  }
}

UnitBlock by_group(const RowBlock& of_units, std::int64_t units_of_group, std::int64_t num_groups,
                   const TensorView& group_offsets, const TensorView& unit_offsets) {
  const std::int64_t first = of_units.first_group / units_of_group;
  const std::int64_t end =
      (of_units.first_group + of_units.num_groups + units_of_group - 1) / units_of_group;
  UnitBlock block{of_units, unit_offsets.slice_rows(0, (end - first) * units_of_group + 1)};
  block.groups.first_group = first;
  block.groups.num_groups = end - first;
  block.groups.offsets =
      num_groups == 1 ? TensorView{} : group_offsets.slice_rows(0, end - first + 1);
  dispatch(
      *unit_offsets.device,
      [&] {
        // Units before the block's first and behind its last have no rows in it.
        std::vector<std::int64_t> units(static_cast<std::size_t>(block.units.numel()),
                                        of_units.end - of_units.begin);
        const auto before = static_cast<std::size_t>(of_units.first_group - first * units_of_group);
        std::fill_n(units.begin(), before, 0);
        const std::vector<std::int64_t> own =
            cpu::read_offsets(of_units.offsets, of_units.end - of_units.begin);
        std::ranges::copy(own, units.begin() + static_cast<std::ptrdiff_t>(before));
        cpu::write_offsets(units, block.units);
        if (num_groups == 1) return;
        std::vector<std::int64_t> groups;
        for (std::size_t i = 0; i < units.size(); i += static_cast<std::size_t>(units_of_group))
          groups.push_back(units[i]);
        cpu::write_offsets(groups, block.groups.offsets);
      },
      [] {}, no_exact_sums_on_cards);
  return block;
}

}  // namespace switchyard::kernels
