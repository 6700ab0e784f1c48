#include "kernels/cuda/attention/attention_hopper.hpp"

#include "kernels/cuda/attention/tensor_map.hpp"
#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

namespace {

#ifdef SWITCHYARD_HAS_SM90A
constexpr bool built_for_hopper = true;
#else
constexpr bool built_for_hopper = false;
#endif

// Its instructions are those of compute capability 9.0 alone.
bool runs_on_hopper() {
  if (!built_for_hopper) return false;
  int card = 0, major = 0;
  check(cudaGetDevice(&card));
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card));
  return major == 9;
}

bool has_kernels_for(const AttentionShape& shape) {
  return shape.head_dim <= 128;
}

}  // namespace

bool can_attend_on_hopper(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                          const TensorView& v, const TensorView& out) {
  return has_kernels_for(shape) && can_map_heads(q, shape.head_dim) &&
         can_map_heads(k, shape.head_dim) && can_map_heads(v, shape.head_dim) && has_packets(out) &&
         runs_on_hopper();
}

bool can_differentiate_on_hopper(const BackwardCall& call) {
  const AttentionGradients& to = call.gradients;
  return has_kernels_for(call.shape) && can_map_heads(call.q, call.shape.head_dim) &&
         can_map_heads(call.k, call.shape.head_dim) && can_map_heads(call.v, call.shape.head_dim) &&
         can_map_heads(call.dout, call.shape.head_dim) && has_packets(to.dq) &&
         has_packets(to.dk) && has_packets(to.dv) && runs_on_hopper();
}

}  // namespace switchyard::kernels::cuda
