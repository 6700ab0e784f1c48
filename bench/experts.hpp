// `switchyard bench experts`: a bank of SwiGLU experts over rows in expert order, forward and
// backward, with even and uneven loads.
#pragma once

#include <vector>

#include "bench/report.hpp"

namespace switchyard::bench {

struct ExpertsSize {
  std::int64_t num_experts = 0;  // of a rank
  std::int64_t num_rows = 0;     // of all of them: tokens times top_k
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
};

struct ExpertsOptions {
  std::vector<DType> precisions{DType::f32, DType::bf16};
  std::vector<ExpertsSize> sizes{
      {16, 16384, 512, 1024},  // configs/bench/moe_216m.yaml on one rank
      {16, 1024, 512, 1024},   // few rows to an expert, 64 to 256: weights weigh more
      {16, 2048, 512, 1024},  {16, 4096, 512, 1024}, {64, 16384, 512, 256},  // many small experts
      {8, 4096, 1024, 2048},                                                 // larger ones
  };
};

enum class Load : std::uint8_t { balanced, skewed };
// Where the rows of each expert begin, num_experts + 1 numbers. Balanced: as even as whole rows
// allow. Skewed: expert e gets a share as 1 / (e + 1), the load of a router without balance loss.
std::vector<std::int64_t> expert_offsets(std::int64_t num_experts, std::int64_t num_rows,
                                         Load load);

// What a pass has to move between memory and processor: rows in and out, what the forward pass
// leaves of each (gate and up), weights once and, backward, their fp32 gradients read and written.
double least_bytes(const ExpertsSize& size, DType precision, bool backward);

// Collective; each rank has a bank of its own, all work at once.
void run_experts(Group& world, const ExpertsOptions& options, const Repeats& repeats,
                 const Output& output);

}  // namespace switchyard::bench
