#include "parallel/gradient_sync.hpp"

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

GradientSync::GradientSync(ParameterStore& store)
    : store_(store),
      missing_(store.buckets().size(), 0),
      bucket_of_(store.parameters().size(), -1),
      reported_(store.parameters().size(), false) {
  const std::vector<Bucket>& buckets = store.buckets();
  for (std::size_t b = 0; b < buckets.size(); ++b)
    for (const BucketEntry& entry : buckets[b].entries)
      bucket_of_[static_cast<std::size_t>(entry.parameter->index())] = static_cast<int>(b);
  expect(std::find(bucket_of_.begin(), bucket_of_.end(), -1) == bucket_of_.end(),
         "the store's allocate() before its gradients are reduced");
  for (int axis = 0; axis < num_axes; ++axis) make_lane(static_cast<Axis>(axis));
}

void GradientSync::make_lane(Axis axis) {
  const std::vector<Bucket>& buckets = store_.buckets();
  Lane lane;
  std::int64_t staging_numel = 0;
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    const int num_replicas = buckets[b].replicas->size();
    if (buckets[b].axis != axis || num_replicas == 1 || buckets[b].numel == 0) continue;
    lane.buckets.push_back(static_cast<int>(b));
    staging_numel = std::max(staging_numel, buckets[b].part * (num_replicas - 1));
  }
  if (lane.buckets.empty()) return;
  lane.slots.resize(std::min<std::size_t>(num_staging, lane.buckets.size()));
  for (Slot& slot : lane.slots)
    slot.staging = Tensor(store_.device(), Purpose::communication, DType::f32, {staging_numel});
  lanes_.push_back(std::move(lane));
}

void GradientSync::arm() {
  expect(!armed_, "finish() before the next arm()");
  armed_ = true;
  std::fill(reported_.begin(), reported_.end(), false);
  std::fill(missing_.begin(), missing_.end(), 0);
  for (int bucket : bucket_of_) ++missing_[static_cast<std::size_t>(bucket)];
  for (Lane& lane : lanes_) lane.num_started = lane.num_finished = 0;
}

void GradientSync::ready(const Parameter& parameter) {
  if (!armed_) return;
  const std::size_t index = static_cast<std::size_t>(parameter.index());
  expect(index < reported_.size() && &store_.parameters()[index] == &parameter,
         "a parameter of this store");
  expect(!reported_[index], "one report of the final gradient of " + parameter.name());
  reported_[index] = true;
  if (--missing_[static_cast<std::size_t>(bucket_of_[index])] == 0) progress();
}

bool GradientSync::can_start(const Lane& lane) const {
  return lane.num_started < lane.buckets.size() &&
         missing_[static_cast<std::size_t>(lane.buckets[lane.num_started])] == 0 &&
         lane.num_started - lane.num_finished < lane.slots.size();
}

void GradientSync::start_next(Lane& lane) {
  const Bucket& bucket = store_.buckets()[static_cast<std::size_t>(lane.buckets[lane.num_started])];
  Slot& slot = lane.slots[lane.num_started % lane.slots.size()];
  slot.event = bucket.replicas->start_reduce_scatter(bucket.gradients, slot.staging);
  ++lane.num_started;
}

void GradientSync::advance(Lane& lane) {
  while (lane.num_finished < lane.num_started &&
         lane.slots[lane.num_finished % lane.slots.size()].event.test())
    ++lane.num_finished;
  while (can_start(lane)) start_next(lane);
}

void GradientSync::progress() {
  if (!armed_) return;
  const Profile::Scope scope(store_.device().profile(), Part::reduction);
  for (Lane& lane : lanes_) advance(lane);
}

void GradientSync::drain(Lane& lane) {
  while (lane.num_finished < lane.buckets.size()) {
    advance(lane);
    if (lane.num_finished == lane.num_started) continue;
    lane.slots[lane.num_finished % lane.slots.size()].event.wait(store_.device().compute_stream());
    ++lane.num_finished;
  }
}

void GradientSync::expect_all_reported() const {
  for (const Parameter& parameter : store_.parameters())
    if (!reported_[static_cast<std::size_t>(parameter.index())])
      throw InternalError("the backward pass never reported the gradient of " + parameter.name());
}

void GradientSync::finish() {
  expect(armed_, "arm() before finish()");
  expect_all_reported();
  const Profile::Scope scope(store_.device().profile(), Part::reduction);
  for (Lane& lane : lanes_) drain(lane);
  armed_ = false;
}

void GradientSync::gather_values() {
  std::vector<Event> events;
  for (const Lane& lane : lanes_)
    for (int b : lane.buckets) {
      const Bucket& bucket = store_.buckets()[static_cast<std::size_t>(b)];
      events.push_back(bucket.replicas->start_all_gather(bucket.values));
    }
  for (Event& event : events) event.wait(store_.device().compute_stream());
}

}  // namespace switchyard
