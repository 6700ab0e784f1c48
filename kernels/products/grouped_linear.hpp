// Products of the rows of several groups with a weight for each: group g has the rows [offsets[g],
// offsets[g + 1]), which may be none, and weights[g] (kernels/products/linear.hpp; all of one shape
// and type). A row's bits are those of the product of linear.hpp with its weight; the pieces of all
// groups are shared out together, so that many small groups keep as many threads busy as a large
// one.
//
// offsets: i32 [groups + 1], contiguous, ascending from 0 to at most the number of rows. They lie
// on the device of the operands (kernels/routing/group_offsets.hpp makes them there), so that no
// kernel of a GPU waits for the host. Rows from offsets[groups] on are left alone. With one group
// offsets may be empty: it has all rows.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>

#include "kernels/products/linear.hpp"

namespace switchyard::kernels {

// y = x W_g^T. x: [rows, in], compute type; y: [rows, out], compute type or f32. Rows of both may
// be strided.
void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& offsets, const TensorView& y);
// dx = dy W_g, or dx += dy W_g. dy: [rows, out], compute type; dx: [rows, in], compute type or f32.
// Rows of both may be strided.
void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& offsets, const TensorView& dx,
                                   Accumulate accumulate = Accumulate::no);
// dw[g] += dy^T x over the rows of group g. dy: [rows, out], x: [rows, in], f32 or bf16 alike, rows
// may be strided; dw: f32 or i64 [groups, out, in], contiguous. For exact sums (i64) offsets has
// the rows of each group by unit, group after group: i32 [groups * units + 1].
void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& offsets, const GradientSum& dw);

// Reserves the device's kernel_scratch for these products with weights [out, in].
void reserve_grouped_linear(Device& device, std::int64_t out_features, std::int64_t in_features,
                            DType compute);

// Consecutive rows, of one or several groups, that a chain of products takes at once.
struct RowBlock {
  std::int64_t begin = 0;  // rows
  std::int64_t end = 0;
  std::int64_t first_group = 0;
  std::int64_t num_groups = 0;
  TensorView offsets;  // of these groups, as above, counted from `begin`
};

// Where processors have caches, what lies between the products of a chain stays there if rows go in
// blocks: the most rows of one that give each thread several pieces. all_rows on a GPU, and in the
// plan of one: there all rows are one block.
inline constexpr std::int64_t all_rows = std::numeric_limits<std::int64_t>::max();
std::int64_t block_rows(const Device& device);

// Calls visit(block) for blocks of at most most_rows rows that cover the rows in use. A group is
// cut only at multiples of `step` rows from its first one. With step gradient_chunk_rows the sums
// of weight gradients, block after block, have the bits of the sum over the whole group.
// most_rows all_rows: one block with the offsets as they came, which nobody reads; end is num_rows
// then. num_rows: of the operands, of which not all need be in use. block_offsets: i32, room for
// those of a block, [groups + 1]; written anew for each; it may be empty for all_rows, or if
// offsets is. On the plan device blocks that follow each other alike are visited once
// (tensor/alike.hpp).
inline constexpr std::int64_t gradient_chunk_rows = 512;
void for_each_row_block(Device& device, const TensorView& offsets, std::int64_t num_rows,
                        std::int64_t num_groups, std::int64_t most_rows, std::int64_t step,
                        const TensorView& block_offsets,
                        const std::function<void(const RowBlock&)>& visit);

// A block whose "groups" are the units of groups (for_each_row_block with the offsets of units and
// a step of term_rows) as one of whole groups, for products of which each group has one weight, and
// with the offsets by unit that an exact grouped_linear_backward_weight takes for these groups.
struct UnitBlock {
  RowBlock groups;  // with offsets, unless there is one group in all
  TensorView units;
};
// units_of_group: of all groups alike. group_offsets, unit_offsets: room for the block's, i32.
UnitBlock by_group(const RowBlock& of_units, std::int64_t units_of_group, std::int64_t num_groups,
                   const TensorView& group_offsets, const TensorView& unit_offsets);

}  // namespace switchyard::kernels
