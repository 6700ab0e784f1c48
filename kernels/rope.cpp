#include "kernels/rope.hpp"

#include <cmath>

#include "kernels/check.hpp"
#include "kernels/cpu/rope.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

RopeTable::RopeTable(Device& device, std::int64_t num_positions, std::int64_t head_dim, double base)
    : cos(device, Purpose::workspace, DType::f32, {num_positions, head_dim / 2}),
      sin(device, Purpose::workspace, DType::f32, {num_positions, head_dim / 2}) {
  expect(head_dim > 0 && head_dim % 2 == 0, "an even head_dim");
  if (num_positions == 0) return;
  dispatch(
      device, [&] { cpu::fill_rope_table(cos, sin, head_dim, base); }, [] {});
}

void rope(const TensorView& x, const RopeTable& table, std::int64_t head_dim,
          std::int64_t sequence_length, std::int64_t first_position, Rotation rotation) {
  if (x.empty()) return;
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(head_dim > 0 && head_dim % 2 == 0 && x.cols() % head_dim == 0, "whole heads of even size");
  expect(sequence_length > 0 && first_position >= 0, "positions of at least 0");
  const std::int64_t longest = sequence_length < x.rows() ? sequence_length : x.rows();
  expect(table.cos->cols() == head_dim / 2 && first_position + longest <= table.cos->rows(),
         "a rope table for this head_dim that covers the positions");
  dispatch(
      *x.device, [&] { cpu::rope(x, table, head_dim, sequence_length, first_position, rotation); },
      [&] { plan::rope(x); });
}

}  // namespace switchyard::kernels
