#include "model/feed_forward.hpp"

#include "model/parameter_spec.hpp"

namespace switchyard {

namespace {

BankSpec dense_spec(const std::string& prefix, const ModelConfig& model, DType compute) {
  BankSpec spec;
  spec.prefix = prefix;
  spec.keys = "model.dense_intermediate, experts.every, model.hidden";
  spec.hidden = model.hidden;
  spec.intermediate = model.dense_intermediate;
  spec.compute = compute;
  spec.initial_std = static_cast<float>(model.initial_std);
  spec.output_std = static_cast<float>(residual_std(model));
  return spec;
}

}  // namespace

void FeedForward::Derived::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "gate_up", gate_up);
}

FeedForward::Scratch::Scratch(Device& device, const ModelConfig& model, DType compute,
                              std::int64_t num_tokens, std::int64_t unit_rows)
    : bank(device, num_tokens, 1, model.dense_intermediate, compute, nullptr,
           BankUnits::of_all_rows(num_tokens, unit_rows)) {}

FeedForward::FeedForward(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                         DType compute)
    : device_(store.device()),
      compute_(compute),
      intermediate_(model.dense_intermediate),
      bank_(store, dense_spec(prefix, model, compute)) {}

FeedForward::Derived FeedForward::make_derived(std::int64_t num_tokens, bool keep_gate_up) const {
  if (!keep_gate_up) return {};
  return {Tensor(device_, Purpose::activation, compute_, {num_tokens, 2 * intermediate_})};
}

void FeedForward::forward(const TensorView& x, const TensorView& y, Derived& derived,
                          Scratch& scratch, const Pass& pass) const {
  bank_.forward(x, TensorView{}, derived.gate_up, y, scratch.bank, pass);
}

void FeedForward::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                           const Derived& derived, Scratch& scratch, const Pass& pass) const {
  bank_.backward(dy, x, TensorView{}, TensorView{}, derived.gate_up, dx, scratch.bank, pass);
}

}  // namespace switchyard
