// RMSNorm of queries and keys before they turn (Henry et al. 2020), of each head with one gain for
// all of them (Qwen3), or of the whole row (OLMoE). Legend: T tokens, A query heads, G key heads, D
// head_dim.
#pragma once

#include <string>

#include "kernels/gradient_sum.hpp"
#include "model/config.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

class QueryKeyNorm {
 public:
  struct Derived {
    Tensor projected;  // [T, (A + G) D]: queries and keys before the norm
    Tensor rstd;       // f32 [norms of a token, T]

    void for_each_tensor(const RecordVisitor& visit);
  };

  // Registers `prefix`.query_norm.weight and `prefix`.key_norm.weight, [D] or [A D] and [G D].
  QueryKeyNorm(ParameterStore& store, const std::string& prefix, const ModelConfig& model);

  Derived make_derived(std::int64_t num_tokens, DType compute, Purpose purpose) const;
  Tensor make_workspace() const;  // of backward()
  // qk: [T, (A + G) D], queries and keys; in place. Fills `derived`.
  void forward(const TensorView& qk, Derived& derived) const;
  // d_normed: [T, (A + G) D], gradient of what forward() left; dx: likewise, written, of what it
  // got. Gradients of the gains are added to, and reported ready.
  void backward(const TensorView& d_normed, const Derived& derived, const TensorView& dx,
                const Tensor& workspace, const Pass& pass) const;

 private:
  // visit(number, first column, end, gain, how many share it).
  template <class Visit>
  void for_each_norm(const Visit& visit) const;

  Device& device_;
  bool of_heads_;
  std::int64_t head_dim_, num_heads_, num_kv_heads_;
  float epsilon_;
  Parameter& query_gain_;
  Parameter& key_gain_;
};

}  // namespace switchyard
