#include "trainer/adamw_optimizer.hpp"

#include "kernels/sums/sums.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

TensorView range_of(const Tensor& bucket_tensor, const OwnedRange& range) {
  return bucket_tensor.view().slice_rows(range.bucket_begin, range.bucket_begin + range.numel);
}

// What of a range counts in the norm: all at once, or, of experts with replicas, in pieces.
std::vector<SlicePiece> counted_stretches(const OwnedRange& range) {
  if (range.parameter->spec().shared.empty()) return {{.numel = range.numel}};
  return range.counted_pieces();
}

}  // namespace

AdamW::AdamW(ParameterStore& store, const OptimizerConfig& config)
    : store_(store), config_(config) {
  for (const Bucket& bucket : store.buckets()) {
    if (bucket.kind == ParameterKind::state) {
      moment1_.emplace_back();
      moment2_.emplace_back();
      continue;
    }
    moment1_.emplace_back(store.device(), Purpose::optimizer, DType::f32, Shape{bucket.part});
    moment2_.emplace_back(store.device(), Purpose::optimizer, DType::f32, Shape{bucket.part});
  }
  for (const OwnedRange& range : store.owned_ranges()) {
    if (!range.parameter->is_trained()) continue;
    const bool decays = range.parameter->spec().decay;
    tensors_.push_back({range_of(range.bucket->values, range),
                        range_of(range.bucket->gradients, range), moment1(range), moment2(range),
                        decays ? static_cast<float>(config.weight_decay) : 0.0f});
  }
  holders_changed();
}

void AdamW::holders_changed() {
  gradients_.clear();
  for (const OwnedRange& range : store_.owned_ranges()) {
    if (!range.parameter->is_trained()) continue;
    const TensorView gradient = range_of(range.bucket->gradients, range);
    for (const SlicePiece& piece : counted_stretches(range))
      gradients_.push_back(gradient.slice_rows(piece.local_begin, piece.local_begin + piece.numel));
  }
}

void AdamW::update(std::int64_t step, double learning_rate, const TensorView& decision) {
  const Profile::Scope scope(store_.device().profile(), Part::optimizer);
  kernels::adamw(tensors_,
                 {.learning_rate = static_cast<float>(learning_rate),
                  .beta1 = static_cast<float>(config_.beta1),
                  .beta2 = static_cast<float>(config_.beta2),
                  .epsilon = static_cast<float>(config_.epsilon),
                  .step = step,
                  .fraction_bits = store_.exact() ? store_.exact()->fraction_bits : 0},
                 decision);
}

void AdamW::add_squared_norm(const TensorView& sum) const {
  const Profile::Scope scope(store_.device().profile(), Part::optimizer);
  if (store_.exact())
    kernels::add_exact_sum_of_squares(gradients_, store_.exact()->fraction_bits,
                                      kernels::SquareParts(num_elements()), sum);
  else
    kernels::add_sum_of_squares(gradients_, sum.slice_rows(0, 1));
}

double AdamW::num_elements() const {
  return static_cast<double>(store_.num_global_elements());
}

TensorView AdamW::moment(const std::vector<Tensor>& moments, const OwnedRange& range) const {
  const auto bucket = static_cast<std::size_t>(range.bucket - store_.buckets().data());
  expect(bucket < moments.size() && range.parameter->is_trained(),
         "a trained range of this optimizer's store");
  const std::int64_t begin = range.bucket_begin - range.bucket->owned_begin();
  return moments[bucket].view().slice_rows(begin, begin + range.numel);
}

}  // namespace switchyard
