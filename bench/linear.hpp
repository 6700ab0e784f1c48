// `switchyard bench linear`: the three products with a weight matrix and the packing of the weight.
#pragma once

#include <vector>

#include "bench/report.hpp"

namespace switchyard::bench {

struct LinearSize {
  std::int64_t num_rows = 0;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
};

struct LinearOptions {
  std::vector<DType> precisions{DType::f32, DType::bf16};
  std::vector<LinearSize> sizes{
      {256, 2048, 512},    // gate and up of an expert with few rows
      {1024, 2048, 512},   // gate and up of an expert
      {1024, 512, 1024},   // down of an expert
      {8192, 1024, 512},   // query, key and value of a micro-batch
      {1024, 8192, 512},   // logits over a vocabulary of 8192
      {4096, 4096, 1024},  // a model of hidden 1024
      {2048, 4096, 4096},  // a model of hidden 4096
  };
};

// Collective; each rank multiplies on its own, all at once.
void run_linear(Group& world, const LinearOptions& options, const Repeats& repeats,
                const Output& output);

}  // namespace switchyard::bench
