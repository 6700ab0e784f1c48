#include <Random123/philox.h>

#include "kernels/cuda/routing/select_fixed.hpp"
#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 128;

// The `number`-th of the experts that are not among the first `count` of `chosen`.
__device__ std::int32_t left_over(std::int32_t number, const std::int32_t* chosen,
                                  std::int64_t count) {
  std::int32_t expert = number;
  for (bool moved = true; moved;) {
    std::int32_t before = 0;
    for (std::int64_t j = 0; j < count; ++j) before += chosen[j] <= expert ? 1 : 0;
    moved = expert != number + before;
    expert = number + before;
  }
  return expert;
}

// A thread has a token. Words of the counter: as random_words(key, token, j / 4) forms them.
__global__ void hash_kernel(const std::int32_t* tokens, r123::Philox4x32::key_type key,
                            std::uint32_t num_experts, CardRows<std::int32_t> indices,
                            std::int64_t num_tokens, std::int64_t top_k) {
  const std::int64_t t = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (t >= num_tokens) return;
  const auto token = static_cast<std::uint64_t>(static_cast<std::int64_t>(tokens[t]));
  std::int32_t* chosen = indices[t];
  r123::Philox4x32::ctr_type words{};
  for (std::int64_t j = 0; j < top_k; ++j) {
    if (j % 4 == 0)
      words = r123::Philox4x32()(
          {{static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(token >> 32),
            static_cast<std::uint32_t>(j / 4), 0}},
          key);
    const std::uint64_t left = num_experts - static_cast<std::uint64_t>(j);
    const auto number = static_cast<std::int32_t>(words[j % 4] * left >> 32);
    chosen[j] = left_over(number, chosen, j);
  }
}

__global__ void turn_kernel(const std::int32_t* positions, const std::int64_t* sequence_ids,
                            std::int64_t rows_of_sequence, std::int64_t sequence_length,
                            std::uint64_t num_experts, CardRows<std::int32_t> indices,
                            std::int64_t num_tokens, std::int64_t top_k) {
  const std::int64_t t = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (t >= num_tokens) return;
  const auto number = static_cast<std::uint64_t>(
      sequence_ids[t / rows_of_sequence] * sequence_length + positions[t]);
  const std::uint64_t first = number * static_cast<std::uint64_t>(top_k);
  for (std::int64_t j = 0; j < top_k; ++j)
    indices[t][j] =
        static_cast<std::int32_t>((first + static_cast<std::uint64_t>(j)) % num_experts);
}

}  // namespace

void select_by_hash(const TensorView& tokens, RandomKey key, std::int64_t num_experts,
                    const TensorView& indices) {
  const r123::Philox4x32::key_type on_card{{key.seed, key.stream}};
  hash_kernel<<<num_blocks(indices.rows(), threads), threads, 0, stream_of(indices)>>>(
      pointer<std::int32_t>(tokens), on_card, static_cast<std::uint32_t>(num_experts),
      card_rows<std::int32_t>(indices), indices.rows(), indices.cols());
  check_launch();
}

void select_in_turn(const TokenNumbers& numbers, std::int64_t num_experts,
                    const TensorView& indices) {
  turn_kernel<<<num_blocks(indices.rows(), threads), threads, 0, stream_of(indices)>>>(
      pointer<std::int32_t>(numbers.positions), pointer<std::int64_t>(numbers.sequence_ids),
      numbers.rows_of_sequence, numbers.sequence_length, static_cast<std::uint64_t>(num_experts),
      card_rows<std::int32_t>(indices), indices.rows(), indices.cols());
  check_launch();
}

}  // namespace switchyard::kernels::cuda
