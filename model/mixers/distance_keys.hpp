// Positions as Transformer-XL has them (Dai et al. 2019): the score of query i and key j is
//   scale ((q_i + u_h) k_j + (q_i + v_h) r_{i - j})        r_d = Wr s(d)
// with s(d) = sin(d f_0) ... sin(d f_{H/2 - 1}), cos(d f_0) ... and f_n = 10000^(-2 n / H), a
// vector of each distance that no position counts in, and learned u, v. Attention takes q + u as
// its queries and q + v as those of keys of distances (kernels::AttentionShape). r is made once a
// step. Legend: T tokens, A num_heads, G num_kv_heads, D head_dim, H hidden, N distances.
#pragma once

#include <string>

#include "experts/row_bias.hpp"
#include "kernels/products/linear.hpp"
#include "model/config.hpp"
#include "parallel/context/part_attention.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class DistanceKeys {
 public:
  struct Scratch {
    Tensor queries;           // [T, A D]: q + u
    Tensor distance_queries;  // [T, A D]: q + v
    // Of the backward pass.
    Tensor d_distance_queries;  // [T, A D]
    Tensor d_keys;              // f32 [N, G D]
    Tensor ones;                // of sums over rows
  };

  // Registers `prefix`.distance.weight [G D, H], and `prefix`.distance.key_bias (u) and
  // `prefix`.distance.distance_bias (v) [A D], which start at zero and do not decay. N:
  // model.sequence_length.
  DistanceKeys(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
               DType compute);

  Scratch make_scratch(std::int64_t num_tokens, bool training) const;
  void pack_weights();
  // inputs.q [T, A D]. Fills the queries in the scratch, and gives them, and the keys, to
  // attention.
  void put_queries(AttentionInputs& inputs, const Scratch& scratch) const;
  // dq: gradient of q + u; becomes that of q. Gradients of the parameters are added to, and
  // reported ready.
  void backward(const TensorView& dq, const Scratch& scratch, const Pass& pass) const;

 private:
  Device& device_;
  ModelConfig model_;
  DType compute_;
  Parameter& weight_;
  RowBias key_bias_, distance_bias_;
  kernels::PackedWeight packed_;
  Tensor sines_;         // f32 [N, H]
  Tensor packed_sines_;  // the same in the compute type, if that is another
  Tensor keys_;          // [N, G D]
};

}  // namespace switchyard
