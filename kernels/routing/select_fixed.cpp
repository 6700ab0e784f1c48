#include "kernels/routing/select_fixed.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/check.hpp"
#include "kernels/cpu/routing/select_fixed.hpp"
#include "kernels/cuda/routing/select_fixed.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_choices(const TensorView& indices, std::int64_t num_experts) {
  expect(indices.dtype == DType::i32 && indices.cols() >= 1 && indices.cols() <= num_experts,
         "indices i32 [T, k] with 1 <= k <= E");
}

void check_numbers(const TokenNumbers& numbers, const TensorView& indices) {
  expect_vector(numbers.positions, DType::i32, indices.rows(), "positions i32 [T]");
  expect(numbers.rows_of_sequence > 0 && indices.rows() % numbers.rows_of_sequence == 0,
         "the same number of rows for each sequence");
  expect_vector(numbers.sequence_ids, DType::i64, indices.rows() / numbers.rows_of_sequence,
                "sequence ids i64 [S]");
}

// The ends of the experts' intervals in units of 2^-32. None is longer than 1, so that the k
// experts of a token are different; what rounding leaves over goes to the first that have room.
std::vector<std::int64_t> ends_of(std::span<const double> shares, std::int64_t top_k) {
  constexpr std::int64_t unit = std::int64_t{1} << 32;
  std::vector<std::int64_t> lengths;
  std::int64_t left = top_k * unit;
  for (const double share : shares) {
    expect(share >= 0 && share <= 1, "shares in [0, 1]");
    lengths.push_back(std::llround(share * static_cast<double>(unit)));
    left -= lengths.back();
  }
  expect(std::abs(left) < unit / 1'000'000, "shares with the sum k");
  std::int64_t end = 0;
  for (std::int64_t& length : lengths) {
    const std::int64_t given = std::clamp(left, -length, unit - length);
    left -= given;
    end += length + given;
    length = end;
  }
  return lengths;
}

}  // namespace

void select_by_hash(const TensorView& tokens, RandomKey key, std::int64_t num_experts,
                    const TensorView& indices) {
  if (indices.empty()) return;
  check_choices(indices, num_experts);
  expect_vector(tokens, DType::i32, indices.rows(), "tokens i32 [T]");
  dispatch(
      *indices.device, [&] { cpu::select_by_hash(tokens, key, num_experts, indices); },
      [&] { plan::select_fixed(indices); },
      [&] { cuda::select_by_hash(tokens, key, num_experts, indices); });
}

void select_by_shares(const TokenNumbers& numbers, std::span<const double> shares,
                      const TensorView& indices) {
  if (indices.empty()) return;
  check_choices(indices, std::ssize(shares));
  check_numbers(numbers, indices);
  const std::vector<std::int64_t> ends = ends_of(shares, indices.cols());
  dispatch(
      *indices.device, [&] { cpu::select_by_shares(numbers, ends, indices); },
      [&] { plan::select_fixed(indices); });
}

void select_in_turn(const TokenNumbers& numbers, std::int64_t num_experts,
                    const TensorView& indices) {
  if (indices.empty()) return;
  check_choices(indices, num_experts);
  check_numbers(numbers, indices);
  dispatch(
      *indices.device, [&] { cpu::select_in_turn(numbers, num_experts, indices); },
      [&] { plan::select_fixed(indices); },
      [&] { cuda::select_in_turn(numbers, num_experts, indices); });
}

}  // namespace switchyard::kernels
