#include "kernels/cuda/routing/balance.hpp"

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sums/integer_sums.cuh"

namespace switchyard::kernels::cuda {

namespace {

// Scores: a block has some experts (one sector of memory, 32 bytes) of a sequence, whose tokens it
// cuts into strips.
constexpr int experts_per_block = 8;
constexpr int num_strips = 128;

// A thread adds the tokens of its strip in their order; the strips are added in a tree. Makes the
// counts 0, to which count_kernel adds.
__global__ void score_sum_kernel(CardRows<const float> scores, std::int64_t sequence_length,
                                 std::int64_t num_experts, std::int64_t blocks_of_sequence,
                                 CardRows<std::int32_t> counts, CardRows<float> score_sums) {
  const std::int64_t s = blockIdx.x / blocks_of_sequence;
  const int column = threadIdx.x % experts_per_block;
  const int strip = threadIdx.x / experts_per_block;
  const std::int64_t e = blockIdx.x % blocks_of_sequence * experts_per_block + column;
  const std::int64_t strip_length = (sequence_length + num_strips - 1) / num_strips;
  const std::int64_t begin = min(strip * strip_length, sequence_length);
  const std::int64_t end = min(begin + strip_length, sequence_length);
  float sum = 0;
  if (e < num_experts) {
#pragma unroll 8
    for (std::int64_t t = begin; t < end; ++t) sum += scores[s * sequence_length + t][e];
  }
  __shared__ float of_strip[num_strips][experts_per_block];
  of_strip[strip][column] = sum;
  for (int half = num_strips / 2; half > 0; half /= 2) {
    __syncthreads();
    if (strip < half) of_strip[strip][column] += of_strip[strip + half][column];
  }
  if (strip > 0 || e >= num_experts) return;
  score_sums[s][e] = of_strip[0][column];
  counts[s][e] = 0;
}

// Choices: a block counts some of a sequence's in shared memory and adds what it found. Integers,
// so the order does not matter.
constexpr int count_threads = 256;
constexpr std::int64_t slots_per_block = 16 * count_threads;
// Beyond this many experts the counters of a block do not pay.
constexpr std::int64_t most_shared_counters = 8192;

__global__ void count_kernel(CardRows<const std::int32_t> indices, std::int64_t top_k,
                             std::int64_t sequence_length, std::int64_t blocks_of_sequence,
                             std::int64_t num_experts, bool in_shared,
                             CardRows<std::int32_t> counts) {
  extern __shared__ std::int32_t counters[];
  const std::int64_t s = blockIdx.x / blocks_of_sequence;
  std::int32_t* target = in_shared ? counters : counts[s];
  if (in_shared)
    for (std::int64_t e = threadIdx.x; e < num_experts; e += count_threads) counters[e] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x % blocks_of_sequence * slots_per_block;
  const std::int64_t end = min(begin + slots_per_block, sequence_length * top_k);
  for (std::int64_t slot = begin + threadIdx.x; slot < end; slot += count_threads) {
    const std::int32_t expert = indices[s * sequence_length + slot / top_k][slot % top_k];
    expect_index(expert, num_experts);
    if (expert >= 0) atomicAdd(target + expert, 1);
  }
  if (!in_shared) return;
  __syncthreads();
  for (std::int64_t e = threadIdx.x; e < num_experts; e += count_threads)
    if (counters[e] != 0) atomicAdd(counts[s] + e, counters[e]);
}

// One block, so that the sums have one order.
constexpr int loss_threads = 1024;

struct LossFactors {
  double num_slots = 0;  // L k
  double length = 0;     // L
  double balance = 0;    // E / sequences of the step
  double num_tokens = 0;
};

__global__ void auxiliary_losses_kernel(const std::int32_t* counts, const float* score_sums,
                                        std::int64_t num_counts, const float* lse,
                                        std::int64_t num_tokens, LossFactors factors,
                                        double* sums) {
  double products = 0;
  for (std::int64_t i = threadIdx.x; i < num_counts; i += loss_threads)
    products +=
        (counts[i] / factors.num_slots) * (static_cast<double>(score_sums[i]) / factors.length);
  double squares = 0;
#pragma unroll 8
  for (std::int64_t i = threadIdx.x; i < num_tokens; i += loss_threads) {
    const double value = static_cast<double>(lse[i]);
    squares += value * value;
  }
  products = block_sum<loss_threads>(products);
  squares = block_sum<loss_threads>(squares);
  if (threadIdx.x > 0) return;
  sums[0] += factors.balance * products;
  sums[1] += squares / factors.num_tokens;
}

constexpr int slope_threads = 256;

__global__ void slopes_kernel(const std::int32_t* counts, double factor, float* slopes,
                              std::int64_t numel) {
  const std::int64_t i = std::int64_t{blockIdx.x} * slope_threads + threadIdx.x;
  if (i < numel) slopes[i] = static_cast<float>(factor * counts[i]);
}

// One block: there are as many counts as experts.
constexpr int load_threads = 256;

__global__ void load_kernel(const std::int32_t* counts, std::int64_t num_places,
                            std::int64_t num_slots, std::int64_t* load) {
  std::int32_t num_rows = 0;
  for (std::int64_t place = threadIdx.x; place < num_places; place += load_threads) {
    load[place] += counts[place];
    num_rows += counts[place];
  }
  num_rows = block_exclusive_sum(num_rows).total;
  if (threadIdx.x == 0) load[num_places] += num_slots - num_rows;
}

}  // namespace

void balance_statistics(const TensorView& scores, const TensorView& indices,
                        std::int64_t sequence_length, const TensorView& counts,
                        const TensorView& score_sums) {
  const std::int64_t sequences = counts.rows(), num_experts = scores.cols();
  const cudaStream_t stream = stream_of(scores);
  const std::int64_t sum_blocks = num_blocks(num_experts, experts_per_block);
  score_sum_kernel<<<static_cast<unsigned>(sequences * sum_blocks), experts_per_block * num_strips,
                     0, stream>>>(card_rows<const float>(scores), sequence_length, num_experts,
                                  sum_blocks, card_rows<std::int32_t>(counts),
                                  card_rows<float>(score_sums));
  check_launch();
  if (indices.empty()) return;
  const std::int64_t count_blocks = num_blocks(sequence_length * indices.cols(), slots_per_block);
  const bool in_shared = num_experts <= most_shared_counters;
  const std::size_t shared_bytes =
      in_shared ? static_cast<std::size_t>(num_experts) * sizeof(std::int32_t) : 0;
  count_kernel<<<static_cast<unsigned>(sequences * count_blocks), count_threads, shared_bytes,
                 stream>>>(card_rows<const std::int32_t>(indices), indices.cols(), sequence_length,
                           count_blocks, num_experts, in_shared, card_rows<std::int32_t>(counts));
  check_launch();
}

void add_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                          const TensorView& lse, const AuxiliaryScale& scale,
                          const TensorView& sums) {
  const double length = static_cast<double>(scale.sequence_length);
  const LossFactors factors{.num_slots = static_cast<double>(scale.sequence_length * scale.top_k),
                            .length = length,
                            .balance = static_cast<double>(counts.cols()) / scale.num_sequences,
                            .num_tokens = scale.num_tokens};
  auxiliary_losses_kernel<<<1, loss_threads, 0, stream_of(sums)>>>(
      pointer_or_null<std::int32_t>(counts), pointer_or_null<float>(score_sums), counts.numel(),
      pointer_or_null<float>(lse), lse.numel(), factors, pointer<double>(sums));
  check_launch();
}

void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes) {
  const double length = static_cast<double>(sequence_length);
  const double num_slots = static_cast<double>(sequence_length * top_k);
  const double factor = weight * static_cast<double>(counts.cols()) / (num_slots * length);
  slopes_kernel<<<num_blocks(counts.numel(), slope_threads), slope_threads, 0, stream_of(slopes)>>>(
      pointer<std::int32_t>(counts), factor, pointer<float>(slopes), counts.numel());
  check_launch();
}

void add_expert_load(const TensorView& counts, std::int64_t num_slots, const TensorView& load) {
  load_kernel<<<1, load_threads, 0, stream_of(load)>>>(pointer_or_null<std::int32_t>(counts),
                                                       counts.numel(), num_slots,
                                                       pointer<std::int64_t>(load));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
