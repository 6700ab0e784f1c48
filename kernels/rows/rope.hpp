// Rotary position embedding (Su et al. 2021) in the half-split form of Llama and Mixtral: element i
// of a head pairs with element i + head_dim / 2; the pair turns by position * frequency(i), where
// frequency(i) = base^(-2 i / head_dim) unless the positions are scaled to a longer context.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// How frequencies change so that a model trained on original_length positions reads `factor` times
// as many. linear: divided by factor (Chen et al. 2023). ntk: base * factor^(D / (D - 2)). yarn:
// those that turn more than beta_fast times over original_length stay, those that turn less than
// beta_slow times are divided by factor, a ramp over the indices between; cos and sin times 0.1
// ln(factor) + 1 (Peng et al. 2023). llama3: the same with a ramp over the turns, and cos and sin
// as they are (Llama 3.1; high_freq_factor is beta_fast, low_freq_factor beta_slow).
enum class RopeScaling : std::uint8_t { none, linear, ntk, yarn, llama3 };
constexpr std::array<std::string_view, 5> choice_names(RopeScaling) {
  return {"none", "linear", "ntk", "yarn", "llama3"};
}

struct RopeSpec {
  double base = 10000;
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;                 // at least 1
  std::int64_t original_length = 0;  // yarn and llama3; positions
  double beta_fast = 32;             // yarn and llama3; turns
  double beta_slow = 1;
  bool truncate = true;  // yarn only; the ramp begins and ends at whole indices
  double mscale = 0;     // yarn only; both above 0: cos and sin times m(mscale) / m(mscale_all_dim)
  double mscale_all_dim = 0;
};
double yarn_magnitude(double factor, double mscale);  // m(mscale) = 0.1 mscale ln(factor) + 1
std::vector<double> rope_frequencies(const RopeSpec& spec, std::int64_t head_dim);  // [D / 2]
double rope_magnitude(const RopeSpec& spec);  // of cos and sin: 1, except for yarn

// cos and sin for positions 0 ... num_positions - 1, in two levels: of multiples of 256 and of the
// rest, whose angles are added on use. A million positions at head_dim 128 take 2 MiB. Computed in
// double. Owner.
struct RopeTable {
  static constexpr std::int64_t fine_positions = 256;

  RopeTable() = default;
  RopeTable(Device& device, std::int64_t num_positions, std::int64_t head_dim,
            const RopeSpec& spec);
  std::int64_t num_positions = 0;
  Tensor coarse;  // f32 [num_positions / 256 rounded up, 2, D / 2]: cos and sin of 256 i
  Tensor fine;    // f32 [256, 2, D / 2]: cos and sin of i, times the magnitude
};

enum class Rotation : bool { forward, backward };  // backward turns the other way: the gradient

// In place on x: [T, num_heads * head_dim], f32 or bf16, rows may be strided. positions: i32 [T],
// of each row.
void rope(const TensorView& x, const RopeTable& table, const TensorView& positions,
          std::int64_t head_dim, Rotation rotation);

}  // namespace switchyard::kernels
