#include "kernels/cuda/sums/step_figures.hpp"

#include <algorithm>

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

namespace {

struct Figures {
  double values[most_written_figures];
};

__global__ void write_kernel(const __grid_constant__ Figures figures, double* to, int count) {
  if (threadIdx.x < count) to[threadIdx.x] = figures.values[threadIdx.x];
}

__global__ void combine_kernel(const double* by_rank, std::int64_t num_ranks, std::int64_t count,
                               std::int64_t num_sums, double* combined) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  double result = by_rank[i];
  for (std::int64_t rank = 1; rank < num_ranks; ++rank) {
    const double next = by_rank[rank * count + i];
    if (i < num_sums)
      result += next;
    else
      result = result < next ? next : result;
  }
  combined[i] = result;
}

// Products and sums are not contracted, so that the loss has the CPU's bits.
struct LossScale {
  double values[3];
};

__global__ void decide_kernel(const double* figures, UpdateRule rule, LossScale loss_scale,
                              double* outcome, float* decision) {
  const double* const scale = loss_scale.values;
  const double balance = __dmul_rn(rule.balance_weight, __dmul_rn(scale[1], figures[1]));
  const double z = __dmul_rn(rule.z_weight, __dmul_rn(scale[2], figures[2]));
  const double loss = __dadd_rn(__dadd_rn(__dmul_rn(scale[0], figures[0]), balance), z);
  const double norm = figures[3] > rule.most_square
                          ? HUGE_VAL
                          : sqrt(__dadd_rn(figures[3], __dadd_rn(figures[4], figures[5])));
  const bool clips = rule.clip_norm > 0 && norm > rule.clip_norm;
  outcome[0] = loss;
  outcome[1] = norm;
  decision[0] = clips ? static_cast<float>(rule.clip_norm / norm) : 1.0f;
  decision[1] = isfinite(loss) && isfinite(norm) && !(figures[6] > 0) ? 1.0f : 0.0f;
}

}  // namespace

void write_figures(std::span<const double> values, const TensorView& to) {
  Figures figures{};
  std::copy(values.begin(), values.end(), figures.values);
  write_kernel<<<1, most_written_figures, 0, stream_of(to)>>>(figures, pointer<double>(to),
                                                              static_cast<int>(values.size()));
  check_launch();
}

void combine_figures(const TensorView& by_rank, std::int64_t num_sums, const TensorView& combined) {
  constexpr int threads = 128;
  combine_kernel<<<num_blocks(by_rank.cols(), threads), threads, 0, stream_of(combined)>>>(
      pointer<double>(by_rank), by_rank.rows(), by_rank.cols(), num_sums,
      pointer<double>(combined));
  check_launch();
}

void decide_update(const TensorView& figures, const UpdateRule& rule, const TensorView& outcome,
                   const TensorView& decision) {
  decide_kernel<<<1, 1, 0, stream_of(decision)>>>(
      pointer<double>(figures), rule,
      LossScale{{rule.loss_scale[0], rule.loss_scale[1], rule.loss_scale[2]}},
      pointer<double>(outcome), pointer<float>(decision));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
