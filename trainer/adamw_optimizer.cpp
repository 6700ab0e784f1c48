#include "trainer/adamw_optimizer.hpp"

#include <cmath>

#include "kernels/adamw.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

TensorView range_of(const Tensor& bucket_tensor, const OwnedRange& range) {
  return bucket_tensor.view().slice_rows(range.bucket_begin, range.bucket_begin + range.numel);
}

}  // namespace

AdamW::AdamW(ParameterStore& store, const OptimizerConfig& config)
    : store_(store), config_(config) {
  for (const OwnedRange& range : store.owned_ranges())
    if (range.parameter->is_trained()) ranges_.push_back(range);
  for (const Bucket& bucket : store.buckets()) {
    if (bucket.kind == ParameterKind::state) {
      moment1_.emplace_back();
      moment2_.emplace_back();
      continue;
    }
    moment1_.emplace_back(store.device(), Purpose::optimizer, DType::f32, Shape{bucket.part});
    moment2_.emplace_back(store.device(), Purpose::optimizer, DType::f32, Shape{bucket.part});
  }
}

void AdamW::update(std::int64_t step, double learning_rate, double gradient_norm) {
  const Profile::Scope scope(store_.device().profile(), Part::optimizer);
  expect(std::isfinite(gradient_norm), "a finite gradient norm");
  const bool clip = config_.clip_norm > 0 && gradient_norm > config_.clip_norm;

  kernels::AdamWScalars scalars;
  scalars.learning_rate = static_cast<float>(learning_rate);
  scalars.beta1 = static_cast<float>(config_.beta1);
  scalars.beta2 = static_cast<float>(config_.beta2);
  scalars.epsilon = static_cast<float>(config_.epsilon);
  scalars.gradient_scale = clip ? static_cast<float>(config_.clip_norm / gradient_norm) : 1.0f;
  scalars.step = step;
  for (const OwnedRange& range : ranges_) {
    const bool decay = range.parameter->spec().decay;
    scalars.weight_decay = decay ? static_cast<float>(config_.weight_decay) : 0.0f;
    kernels::adamw(range_of(range.bucket->values, range), range_of(range.bucket->gradients, range),
                   moment1(range), moment2(range), scalars);
  }
}

double AdamW::squared_norm_of_owned() const {
  const Profile::Scope scope(store_.device().profile(), Part::optimizer);
  double sum = 0;
  for (const OwnedRange& range : ranges_)
    sum += kernels::sum_of_squares(range_of(range.bucket->gradients, range));
  return sum;
}

TensorView AdamW::moment(const std::vector<Tensor>& moments, const OwnedRange& range) const {
  const auto bucket = static_cast<std::size_t>(range.bucket - store_.buckets().data());
  expect(bucket < moments.size() && range.parameter->is_trained(),
         "a trained range of this optimizer's store");
  const std::int64_t begin = range.bucket_begin - range.bucket->owned_begin();
  return moments[bucket].view().slice_rows(begin, begin + range.numel);
}

}  // namespace switchyard
