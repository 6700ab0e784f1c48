#include "model/mixers/query_key_norm.hpp"

#include <algorithm>

#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "model/parameter_spec.hpp"

namespace switchyard {

namespace {

ParameterSpec gain_spec(const std::string& name, std::int64_t width) {
  ParameterSpec spec = norm_spec(name, width);
  spec.keys = "model.qk_norm, model.num_heads, model.num_kv_heads, model.head_dim, model.hidden";
  return spec;
}

std::int64_t gain_width(const ModelConfig& model, std::int64_t num_heads) {
  return model.effective_head_dim() * (model.qk_norm == QkNorm::head ? 1 : num_heads);
}

}  // namespace

void QueryKeyNorm::Derived::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "projected", projected);
  visit_tensor(visit, "norm_rstd", rstd);
}

QueryKeyNorm::QueryKeyNorm(ParameterStore& store, const std::string& prefix,
                           const ModelConfig& model)
    : device_(store.device()),
      of_heads_(model.qk_norm == QkNorm::head),
      head_dim_(model.effective_head_dim()),
      num_heads_(model.num_heads),
      num_kv_heads_(model.num_kv_heads),
      epsilon_(static_cast<float>(model.norm_epsilon)),
      query_gain_(
          store.add(gain_spec(prefix + ".query_norm.weight", gain_width(model, model.num_heads)))),
      key_gain_(store.add(
          gain_spec(prefix + ".key_norm.weight", gain_width(model, model.num_kv_heads)))) {}

QueryKeyNorm::Derived QueryKeyNorm::make_derived(std::int64_t num_tokens, DType compute,
                                                 Purpose purpose) const {
  const std::int64_t all_heads = num_heads_ + num_kv_heads_;
  Derived derived;
  derived.projected = Tensor(device_, purpose, compute, {num_tokens, all_heads * head_dim_});
  derived.rstd = Tensor(device_, purpose, DType::f32, {of_heads_ ? all_heads : 2, num_tokens});
  return derived;
}

Tensor QueryKeyNorm::make_workspace() const {
  const std::int64_t widest = of_heads_ ? head_dim_ : head_dim_ * num_heads_;
  return {
      device_, Purpose::workspace, DType::u8, {kernels::rms_norm_workspace_bytes(device_, widest)}};
}

template <class Visit>
void QueryKeyNorm::for_each_norm(const Visit& visit) const {
  const std::int64_t keys_begin = num_heads_ * head_dim_;
  const std::int64_t end = keys_begin + num_kv_heads_ * head_dim_;
  if (!of_heads_) {
    visit(0, 0, keys_begin, query_gain_, 1);
    visit(1, keys_begin, end, key_gain_, 1);
    return;
  }
  for (std::int64_t head = 0; head < num_heads_ + num_kv_heads_; ++head)
    visit(head, head * head_dim_, (head + 1) * head_dim_,
          head < num_heads_ ? query_gain_ : key_gain_,
          head < num_heads_ ? num_heads_ : num_kv_heads_);
}

void QueryKeyNorm::forward(const TensorView& qk, Derived& derived) const {
  const TensorView projected = derived.projected->slice_rows(0, qk.rows());
  kernels::copy(qk, projected);
  for_each_norm([&](std::int64_t number, std::int64_t begin, std::int64_t end,
                    const Parameter& gain, std::int64_t /*sharing*/) {
    kernels::rms_norm_forward(projected.slice_cols(begin, end), gain.value(), epsilon_,
                              qk.slice_cols(begin, end),
                              derived.rstd.view()[number].slice_rows(0, qk.rows()));
  });
}

void QueryKeyNorm::backward(const TensorView& d_normed, const Derived& derived,
                            const TensorView& dx, const Tensor& workspace, const Pass& pass) const {
  const TensorView projected = derived.projected->slice_rows(0, dx.rows());
  for_each_norm([&](std::int64_t number, std::int64_t begin, std::int64_t end,
                    const Parameter& gain, std::int64_t sharing) {
    // Of exact sums each of the heads has its part.
    kernels::GradientSum sum = gain.gradient_sum();
    sum.exact.most_of_unit /= static_cast<double>(sharing);
    kernels::rms_norm_backward(d_normed.slice_cols(begin, end), projected.slice_cols(begin, end),
                               gain.value(), derived.rstd.view()[number].slice_rows(0, dx.rows()),
                               {}, dx.slice_cols(begin, end), sum, workspace);
  });
  pass.gradient_ready(query_gain_);
  pass.gradient_ready(key_gain_);
}

}  // namespace switchyard
