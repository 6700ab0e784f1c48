#include "experts/latent_space.hpp"

namespace switchyard {

namespace {

ParameterSpec weight_spec(const std::string& name, std::int64_t out, std::int64_t in, float std) {
  return {.name = name,
          .global_shape = {out, in},
          .keys = "experts.latent, experts.every, experts.first_dense, model.hidden",
          .replicas = Axis::dense_replica,
          .initial_std = std};
}

}  // namespace

LatentSpace::LatentSpace(ParameterStore& store, const std::string& prefix, std::int64_t hidden,
                         std::int64_t latent, DType compute, float output_std, float initial_std)
    : down_(store.add(weight_spec(prefix + ".down.weight", latent, hidden, initial_std))),
      up_(store.add(weight_spec(prefix + ".up.weight", hidden, latent, output_std))),
      packed_down_(store.device(), latent, hidden, compute),
      packed_up_(store.device(), hidden, latent, compute) {}

void LatentSpace::pack_weights() {
  packed_down_.pack(down_.value());
  packed_up_.pack(up_.value());
}

void LatentSpace::go_down(const TensorView& x, const TensorView& inner) const {
  kernels::linear_forward(x, packed_down_, inner);
}

void LatentSpace::go_up(const TensorView& inner, const TensorView& y) const {
  kernels::linear_forward(inner, packed_up_, y);
}

void LatentSpace::go_up_backward(const TensorView& dy, const TensorView& inner,
                                 const TensorView& d_inner, const Pass& pass) const {
  kernels::linear_backward_weight(dy, inner, up_.gradient_sum());
  pass.gradient_ready(up_);
  kernels::linear_backward_input(dy, packed_up_, d_inner);
}

void LatentSpace::go_down_backward(const TensorView& d_inner, const TensorView& x,
                                   const TensorView& dx, const Pass& pass) const {
  kernels::linear_backward_weight(d_inner, x, down_.gradient_sum());
  pass.gradient_ready(down_);
  kernels::linear_backward_input(d_inner, packed_down_, dx);
}

}  // namespace switchyard
