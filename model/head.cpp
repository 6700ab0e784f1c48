#include "model/head.hpp"

#include <algorithm>

#include "kernels/rows/cross_entropy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/sums/sums.hpp"
#include "model/parameter_spec.hpp"
#include "tensor/alike.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t most_logits = std::int64_t{1} << 24;  // 64 MiB

}  // namespace

std::int64_t Head::chunk_rows(std::int64_t num_tokens, std::int64_t hidden, std::int64_t vocab,
                              std::int64_t unit_rows) {
  if (unit_rows > 0) {
    const std::int64_t part = chunk_rows(unit_rows, hidden, vocab);
    if (part < unit_rows) return part;
    return std::max(chunk_rows(num_tokens, hidden, vocab) / unit_rows, std::int64_t{1}) * unit_rows;
  }
  const std::int64_t blocks =
      std::min(num_tokens * hidden, most_logits) / (vocab * kernels::row_block);
  return std::min(num_tokens, std::max<std::int64_t>(blocks, 1) * kernels::row_block);
}

Head::Scratch::Scratch(Device& device, const ModelConfig& model, DType compute,
                       std::int64_t num_tokens, std::int64_t unit_rows)
    : logits(device, Purpose::workspace, DType::f32,
             {chunk_rows(num_tokens, model.hidden, model.vocab_size, unit_rows), model.vocab_size}),
      losses(device, Purpose::workspace, DType::f32, {num_tokens}) {
  if (compute != DType::f32)
    dlogits = Tensor(device, Purpose::workspace, compute, logits.view().shape);
}

Head::Head(ParameterStore& store, const ModelConfig& model, DType compute, Parameter* embedding,
           std::int64_t vocab_size_used)
    : compute_(compute),
      vocab_size_used_(vocab_size_used),
      tied_(embedding != nullptr),
      weight_(tied_ ? *embedding
                    : store.add(weight_spec("head.weight", {model.vocab_size, model.hidden},
                                            "model.vocab_size, model.hidden, model.tie_embeddings",
                                            model.initial_std))),
      packed_(store.device(), model.vocab_size, model.hidden, compute) {
  expect(vocab_size_used > 0 && vocab_size_used <= model.vocab_size,
         "a vocabulary no larger than model.vocab_size");
}

void Head::pack_weights() {
  packed_.pack(weight_.value());
}

void Head::losses_of(const Targets& targets, std::int64_t begin, std::int64_t end,
                     float gradient_scale, const TensorView& dlogits, Scratch& scratch) const {
  kernels::softmax_cross_entropy(
      scratch.logits->slice_rows(0, end - begin), targets.ids.slice_rows(begin, end),
      vocab_size_used_, gradient_scale, scratch.losses->slice_rows(begin, end), dlogits,
      targets.weights.empty() ? TensorView{} : targets.weights.slice_rows(begin, end));
}

void Head::train(const TensorView& x, const Targets& targets, const TensorView& dx,
                 Scratch& scratch, const Pass& pass, const TensorView& loss) const {
  const std::int64_t chunk = scratch.logits->rows();
  const auto gradient_scale = static_cast<float>(1 / pass.total_weight());
  const kernels::GradientSum gradient = weight_.gradient_sum().in_parts(chunk);
  const auto run_chunk = [&](std::int64_t begin, std::int64_t end) {
    const TensorView x_rows = x.slice_rows(begin, end);
    const TensorView logits = scratch.logits->slice_rows(0, end - begin);
    const TensorView dlogits =
        compute_ == DType::f32 ? logits : scratch.dlogits->slice_rows(0, end - begin);
    kernels::linear_forward(x_rows, packed_, logits);
    losses_of(targets, begin, end, gradient_scale, dlogits, scratch);
    kernels::linear_backward_input(dlogits, packed_, dx.slice_rows(begin, end));
    kernels::linear_backward_weight(dlogits, x_rows, gradient);
    pass.poll();
  };
  kernels::for_each_piece_of_units(*x.device, x.rows(), weight_.gradient_sum().unit_rows(), chunk,
                                   run_chunk);
  if (!tied_) pass.gradient_ready(weight_);
  add_loss(scratch, pass, loss);
}

void Head::add_loss(const Scratch& scratch, const Pass& pass, const TensorView& loss) const {
  if (pass.exact.is_on())
    kernels::add_exact_sum(scratch.losses, pass.exact.token_loss, loss);
  else
    kernels::add_sum(scratch.losses, pass.total_weight(), loss);
}

void Head::evaluate(const TensorView& x, const Targets& targets, const TensorView& token_losses,
                    Scratch& scratch, const Pass& pass, const TensorView& loss,
                    const SeeLogits& see) const {
  const std::int64_t chunk = scratch.logits->rows();
  for_each_row_piece(*x.device, x.rows(), chunk, [&](std::int64_t begin, std::int64_t end) {
    const TensorView logits = scratch.logits->slice_rows(0, end - begin);
    kernels::linear_forward(x.slice_rows(begin, end), packed_, logits);
    losses_of(targets, begin, end, 1.0f, {}, scratch);
    if (see) see(begin, logits);
  });
  if (!token_losses.empty()) kernels::copy(scratch.losses, token_losses.flat());
  add_loss(scratch, pass, loss);
}

void Head::logits(const TensorView& x, const TensorView& out) const {
  kernels::linear_forward(x, packed_, out);
}

}  // namespace switchyard
