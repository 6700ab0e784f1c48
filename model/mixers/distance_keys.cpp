#include "model/mixers/distance_keys.hpp"

#include <cmath>

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/parameter_spec.hpp"

namespace switchyard {

namespace {

constexpr const char* shape_keys =
    "model.num_heads, model.num_kv_heads, model.head_dim, model.hidden";

void write_sines(const ModelConfig& model, std::span<float> rows) {
  const std::int64_t half = model.hidden / 2;
  for (std::int64_t d = 0; d < model.sequence_length; ++d)
    for (std::int64_t n = 0; n < half; ++n) {
      const double frequency =
          std::pow(10000.0, -2.0 * static_cast<double>(n) / static_cast<double>(model.hidden));
      const double angle = static_cast<double>(d) * frequency;
      rows[static_cast<std::size_t>(d * model.hidden + n)] = static_cast<float>(std::sin(angle));
      rows[static_cast<std::size_t>(d * model.hidden + half + n)] =
          static_cast<float>(std::cos(angle));
    }
}

}  // namespace

DistanceKeys::DistanceKeys(ParameterStore& store, const std::string& prefix,
                           const ModelConfig& model, DType compute)
    : device_(store.device()),
      model_(model),
      compute_(compute),
      weight_(store.add(weight_spec(prefix + ".distance.weight", {model.key_cols(), model.hidden},
                                    shape_keys, model.initial_std))),
      key_bias_(store, bias_spec(prefix + ".distance.key_bias", model.query_cols(), shape_keys),
                compute),
      distance_bias_(store,
                     bias_spec(prefix + ".distance.distance_bias", model.query_cols(), shape_keys),
                     compute),
      packed_(store.device(), model.key_cols(), model.hidden, compute, false),
      sines_(store.device(), Purpose::parameter, DType::f32, {model.sequence_length, model.hidden}),
      keys_(store.device(), Purpose::parameter, compute,
            {model.sequence_length, model.key_cols()}) {
  if (compute != DType::f32)
    packed_sines_ = Tensor(store.device(), Purpose::parameter, compute, sines_->shape);
  if (store.device().is_plan()) return;
  kernels::write_from_host<float>(sines_, [&](std::span<float> rows) { write_sines(model, rows); });
  if (compute != DType::f32) kernels::copy(sines_, packed_sines_);
}

DistanceKeys::Scratch DistanceKeys::make_scratch(std::int64_t num_tokens, bool training) const {
  const auto rows = [&] {
    return Tensor(device_, Purpose::workspace, compute_, {num_tokens, model_.query_cols()});
  };
  Scratch scratch;
  scratch.queries = rows();
  scratch.distance_queries = rows();
  if (!training) return scratch;
  scratch.d_distance_queries = rows();
  scratch.d_keys = Tensor(device_, Purpose::workspace, DType::f32, keys_->shape);
  scratch.ones = RowBias::make_ones(device_, num_tokens, compute_);
  return scratch;
}

void DistanceKeys::pack_weights() {
  packed_.pack(weight_.value());
  key_bias_.pack_weights();
  distance_bias_.pack_weights();
  kernels::linear_forward(packed_sines_.empty() ? sines_ : packed_sines_, packed_, keys_);
}

void DistanceKeys::put_queries(AttentionInputs& inputs, const Scratch& scratch) const {
  kernels::copy(inputs.q, scratch.queries);
  kernels::copy(inputs.q, scratch.distance_queries);
  key_bias_.add_to(scratch.queries);
  distance_bias_.add_to(scratch.distance_queries);
  inputs.q = scratch.queries;
  inputs.distance_queries = scratch.distance_queries;
  inputs.distance_keys = keys_;
}

void DistanceKeys::backward(const TensorView& dq, const Scratch& scratch, const Pass& pass) const {
  key_bias_.backward(dq, scratch.ones, pass);
  distance_bias_.backward(scratch.d_distance_queries, scratch.ones, pass);
  kernels::add(dq, scratch.d_distance_queries, dq);
  kernels::linear_backward_weight(scratch.d_keys, sines_, weight_.gradient_sum());
  pass.gradient_ready(weight_);
}

}  // namespace switchyard
