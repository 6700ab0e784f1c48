#include "parallel/gradient_sync.hpp"

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

GradientSync::GradientSync(ParameterStore& store)
    : store_(store),
      shared_(store),
      missing_(store.buckets().size(), 0),
      bucket_of_(store.parameters().size(), -1),
      reported_(store.parameters().size(), false) {
  const std::vector<Bucket>& buckets = store.buckets();
  for (std::size_t b = 0; b < buckets.size(); ++b)
    for (const BucketEntry& entry : buckets[b].entries)
      bucket_of_[static_cast<std::size_t>(entry.parameter->index())] = static_cast<int>(b);
  expect(std::find(bucket_of_.begin(), bucket_of_.end(), -1) == bucket_of_.end(),
         "allocate() of the store to be called before its gradients are reduced");
  for (std::size_t b = 0; b < buckets.size(); ++b)
    if (buckets[b].kind == ParameterKind::trained && buckets[b].replicas->size() > 1 &&
        buckets[b].numel > 0)
      order_.push_back({static_cast<int>(b), buckets[b].axis});
  for (int axis = 0; axis < num_axes; ++axis) make_lane(static_cast<Axis>(axis));
}

void GradientSync::make_lane(Axis axis) {
  const std::vector<Bucket>& buckets = store_.buckets();
  std::size_t num_reductions = 0;
  std::int64_t staging_numel = 0;
  for (const Reduction& reduction : order_) {
    if (reduction.axis != axis) continue;
    const Bucket& bucket = buckets[static_cast<std::size_t>(reduction.bucket)];
    ++num_reductions;
    staging_numel = std::max(staging_numel, bucket.part * (bucket.replicas->size() - 1));
  }
  std::vector<Slot>& slots = lanes_[static_cast<std::size_t>(axis)].slots;
  slots.resize(std::min<std::size_t>(num_staging, num_reductions));
  for (Slot& slot : slots)
    slot.staging = Tensor(store_.device(), Purpose::communication,
                          store_.exact() ? DType::i64 : DType::f32, {staging_numel});
}

void GradientSync::arm() {
  expect(!armed_, "finish() to be called before the next arm()");
  armed_ = true;
  std::fill(reported_.begin(), reported_.end(), false);
  std::fill(missing_.begin(), missing_.end(), 0);
  for (int bucket : bucket_of_) ++missing_[static_cast<std::size_t>(bucket)];
  for (Lane& lane : lanes_) lane.num_started = 0;
  num_complete_ = num_started_ = 0;
}

void GradientSync::ready(const Parameter& parameter) {
  if (!armed_) return;
  const std::size_t index = static_cast<std::size_t>(parameter.index());
  expect(index < reported_.size() && &store_.parameters()[index] == &parameter,
         "a parameter of this store");
  expect(parameter.is_trained(), "a gradient of what is trained, not of " + parameter.name());
  expect(!reported_[index], "one report only of the final gradient of " + parameter.name());
  reported_[index] = true;
  --missing_[static_cast<std::size_t>(bucket_of_[index])];

  const Profile::Scope scope(store_.device().profile(), Part::reduction);
  shared_.add_up(parameter);
  start_until(num_complete_, true);  // what an earlier report put off
  while (num_complete_ < order_.size() &&
         missing_[static_cast<std::size_t>(order_[num_complete_].bucket)] == 0)
    ++num_complete_;
  start_until(num_complete_, false);
}

void GradientSync::start_until(std::size_t end, bool may_wait) {
  for (; num_started_ < end; ++num_started_) {
    const Reduction& reduction = order_[num_started_];
    Lane& lane = lanes_[static_cast<std::size_t>(reduction.axis)];
    Slot& slot = lane.slots[lane.num_started % lane.slots.size()];
    if (slot.in_use && !may_wait) return;
    release(slot, store_.device().communication_stream());
    const Bucket& bucket = store_.buckets()[static_cast<std::size_t>(reduction.bucket)];
    slot.event = bucket.replicas->start_reduce_scatter(bucket.gradients, slot.staging);
    slot.in_use = true;
    ++lane.num_started;
  }
}

void GradientSync::release(Slot& slot, Stream& next_user) {
  slot.event.wait(next_user);
  slot.in_use = false;
}

void GradientSync::progress() {
  if (!armed_) return;
  const Profile::Scope scope(store_.device().profile(), Part::reduction);
  for (Lane& lane : lanes_)
    for (Slot& slot : lane.slots) slot.event.test();
}

void GradientSync::expect_all_reported() const {
  for (const Parameter& parameter : store_.parameters())
    if (parameter.is_trained() && !reported_[static_cast<std::size_t>(parameter.index())])
      throw InternalError("the backward pass never reported the gradient of " + parameter.name());
}

void GradientSync::finish() {
  expect(armed_, "arm() to be called before finish()");
  expect_all_reported();
  const Profile::Scope scope(store_.device().profile(), Part::reduction);
  start_until(order_.size(), true);
  for (Lane& lane : lanes_)
    for (Slot& slot : lane.slots) release(slot, store_.device().compute_stream());
  armed_ = false;
}

void GradientSync::gather_values() {
  std::vector<Event> events;
  for (const Reduction& reduction : order_) {
    const Bucket& bucket = store_.buckets()[static_cast<std::size_t>(reduction.bucket)];
    events.push_back(bucket.replicas->start_all_gather(bucket.values));
  }
  for (Event& event : events) event.wait(store_.device().compute_stream());
}

}  // namespace switchyard
