// What both kernels of the gradients on Hopper take. For .cu files.
#pragma once

#include "kernels/cuda/attention/attention_hopper.hpp"
#include "kernels/cuda/attention/attention_tiles.cuh"
#include "kernels/cuda/attention/tensor_map.hpp"

namespace switchyard::kernels::cuda {

struct BackwardMaps {
  CUtensorMap q, k, v, dout;
};
inline BackwardMaps maps_of(const BackwardCall& call, int queries_of_tile, int keys_of_tile) {
  const AttentionShape& s = call.shape;
  const auto of_queries = [&](const TensorView& view) {
    return head_map(view, s.num_sequences, s.query_length, s.head_dim, queries_of_tile);
  };
  const auto of_keys = [&](const TensorView& view) {
    return head_map(view, s.num_sequences, s.key_length, s.head_dim, keys_of_tile);
  };
  return {of_queries(call.q), of_keys(call.k), of_keys(call.v), of_queries(call.dout)};
}

struct RowValues {
  MatrixRows<const float> lse;
  MatrixRows<const float> delta;
};
inline RowValues row_values(const BackwardCall& call) {
  return {rows_of<const float>(call.lse), rows_of<const float>(call.delta)};
}

}  // namespace switchyard::kernels::cuda
