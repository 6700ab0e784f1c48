#include "model/mixers/relative_bias.hpp"

#include "kernels/products/linear.hpp"
#include "model/parameter_spec.hpp"

namespace switchyard {

RelativeBias::RelativeBias(ParameterStore& store, const std::string& prefix,
                           const ModelConfig& model)
    : table_(store.add(
          relative_spec(prefix + ".relative.weight", model.num_heads, model.position.buckets))),
      buckets_(buckets(model)),
      values_(store.device(), Purpose::parameter, DType::f32,
              {model.num_heads, std::ssize(buckets_)}) {}

std::vector<std::int32_t> RelativeBias::buckets(const ModelConfig& model) {
  if (model.position.kind != PositionKind::relative) return {};
  return kernels::distance_buckets(model.position.buckets, model.position.max_distance);
}

void RelativeBias::pack_weights() {
  kernels::spread_buckets(table_.value(), buckets_, values_);
}

// The sum over rows is a product with a column of ones, so exact sums and their order are those of
// weights.
void RelativeBias::backward(const TensorView& d_rows, const TensorView& ones,
                            const Pass& pass) const {
  const std::int64_t numel = table_.gradient().numel();
  kernels::linear_backward_weight(d_rows, ones,
                                  table_.gradient_sum().at(table_.gradient().reshape({numel, 1})));
  pass.gradient_ready(table_);
}

}  // namespace switchyard
