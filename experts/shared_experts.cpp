#include "experts/shared_experts.hpp"

#include "kernels/routing/permute.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/swiglu.hpp"

namespace switchyard {

namespace {

BankSpec bank_spec(const std::string& prefix, const ExpertsConfig& config, std::int64_t hidden,
                   DType compute, float output_std, float initial_std) {
  BankSpec spec;
  spec.prefix = prefix;
  spec.keys =
      "experts.shared.number, experts.shared.intermediate, experts.intermediate, experts.bias, "
      "experts.every, experts.first_dense, model.hidden";
  spec.hidden = hidden;
  spec.intermediate = config.shared_width();
  spec.compute = compute;
  spec.initial_std = initial_std;
  spec.output_std = output_std;
  spec.clamp = config.swiglu_clamp();
  spec.has_bias = config.bias;
  return spec;
}

ParameterSpec gate_spec(const std::string& prefix, std::int64_t hidden, float initial_std) {
  return {.name = prefix + ".gate.weight",
          .global_shape = {1, hidden},
          .keys = "experts.shared.gate, model.hidden",
          .replicas = Axis::dense_replica,
          .initial_std = initial_std};
}

// What of a buffer this micro-batch uses; nothing of one that was never made.
TensorView used(const Tensor& buffer, const TensorView& x) {
  return buffer.empty() ? TensorView{} : buffer->slice_rows(0, x.rows());
}

}  // namespace

void SharedExperts::Derived::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "gate_up", gate_up);
  visit_tensor(visit, "out", out);
  visit_tensor(visit, "gate", gate);
}

SharedExperts::Scratch::Scratch(Device& device, const ExpertsConfig& config, std::int64_t hidden,
                                DType compute, std::int64_t num_tokens, std::int64_t unit_rows)
    : bank(device, num_tokens, 1, config.shared_width(), compute, nullptr,
           BankUnits::of_all_rows(num_tokens, unit_rows), false, config.bias),
      y(device, Purpose::workspace, compute, {num_tokens, hidden}) {
  if (config.shared.gate == SharedGate::none) return;
  d_out = Tensor(device, Purpose::workspace, compute, {num_tokens, hidden});
  dgate = Tensor(device, Purpose::workspace, DType::f32, {num_tokens, 1});
  row_numbers = Tensor(device, Purpose::workspace, DType::i32, {num_tokens, 1});
  kernels::iota(row_numbers);
  hidden_f32 = TokenProjection::make_room(device, num_tokens, hidden, compute);
}

SharedExperts::SharedExperts(ParameterStore& store, const std::string& prefix,
                             const ExpertsConfig& config, std::int64_t hidden, DType compute,
                             float output_std, float initial_std)
    : device_(store.device()),
      compute_(compute),
      hidden_(hidden),
      width_(config.shared_width()),
      bank_(store, bank_spec(prefix, config, hidden, compute, output_std, initial_std)) {
  if (config.shared.gate == SharedGate::sigmoid)
    gate_.emplace(store, gate_spec(prefix, hidden, initial_std));
}

SharedExperts::Derived SharedExperts::make_derived(std::int64_t num_tokens,
                                                   bool keep_gate_up) const {
  Derived derived;
  if (keep_gate_up)
    derived.gate_up = Tensor(device_, Purpose::activation, compute_, {num_tokens, 2 * width_});
  if (gate_) {
    derived.out = Tensor(device_, Purpose::activation, compute_, {num_tokens, hidden_});
    derived.gate = Tensor(device_, Purpose::activation, DType::f32, {num_tokens, 1});
  }
  return derived;
}

void SharedExperts::pack_weights() {
  bank_.pack_weights();
  if (gate_) gate_->pack_weights();
}

TensorView SharedExperts::forward(const TensorView& x, Derived& derived, Scratch& scratch,
                                  const Pass& pass) const {
  const TensorView y = used(scratch.y, x);
  const TensorView out = gate_ ? used(derived.out, x) : y;
  bank_.forward(x, TensorView{}, used(derived.gate_up, x), out, scratch.bank, pass);
  if (!gate_) return y;
  const TensorView gate = used(derived.gate, x);
  gate_->forward(x, gate, scratch.hidden_f32);
  kernels::sigmoid_forward(gate, gate);
  kernels::combine_rows(out, used(scratch.row_numbers, x), gate, y);
  return y;
}

void SharedExperts::rebuild(const TensorView& x, Derived& derived, Scratch& scratch,
                            const Pass& pass) const {
  if (gate_ || !derived.gate_up.empty()) forward(x, derived, scratch, pass);
}

TensorView SharedExperts::backward(const TensorView& dy, const TensorView& x,
                                   const Derived& derived, Scratch& scratch,
                                   const Pass& pass) const {
  const TensorView dx = used(scratch.y, x), gate_up = used(derived.gate_up, x);
  if (!gate_) {
    bank_.backward(dy, x, TensorView{}, TensorView{}, gate_up, dx, scratch.bank, pass);
    return dx;
  }
  const TensorView gate = used(derived.gate, x), dgate = used(scratch.dgate, x);
  const TensorView d_out = used(scratch.d_out, x);
  kernels::combine_rows_backward(dy, used(derived.out, x), used(scratch.row_numbers, x), gate,
                                 d_out, dgate);
  kernels::sigmoid_backward(dgate, gate, dgate);
  bank_.backward(d_out, x, TensorView{}, TensorView{}, gate_up, dx, scratch.bank, pass);
  gate_->backward(dgate, x, dx, scratch.hidden_f32, pass);
  return dx;
}

}  // namespace switchyard
