// Rotary position embedding (Su et al. 2021) in the half-split form of Llama and Mixtral: element i
// of a head pairs with element i + head_dim / 2; the pair turns by position * base^(-2 i / head_dim).
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// cos and sin for positions 0 ... num_positions - 1, computed in double. f32 [num_positions,
// head_dim / 2] each. Owner.
struct RopeTable {
  RopeTable() = default;
  RopeTable(Device& device, std::int64_t num_positions, std::int64_t head_dim, double base);
  Tensor cos;
  Tensor sin;
};

enum class Rotation : bool { forward, backward };  // backward turns the other way: the gradient

// In place on x: [T, num_heads * head_dim], f32 or bf16, rows may be strided. Row t is at position
// first_position + t % sequence_length.
void rope(const TensorView& x, const RopeTable& table, std::int64_t head_dim,
          std::int64_t sequence_length, std::int64_t first_position, Rotation rotation);

}  // namespace switchyard::kernels
