#include "tensor/profile.hpp"

#include <numeric>

namespace switchyard {

std::string_view name_of(Part part) {
  switch (part) {
    case Part::other:
      return "other";
    case Part::data:
      return "data";
    case Part::embedding:
      return "embedding";
    case Part::attention:
      return "attention";
    case Part::router:
      return "router";
    case Part::dispatch:
      return "dispatch";
    case Part::experts:
      return "experts";
    case Part::combine:
      return "combine";
    case Part::head:
      return "head";
    case Part::reduction:
      return "reduction";
    case Part::optimizer:
      return "optimizer";
    case Part::spill:
      return "spill";
  }
  return "?";
}

Work& Work::operator+=(const Work& more) {
  flops += more.flops;
  bytes += more.bytes;
  wire_bytes += more.wire_bytes;
  control_bytes += more.control_bytes;
  control_messages += more.control_messages;
  return *this;
}

Part Profile::enter(Part part) {
  const Clock::time_point now = Clock::now();
  seconds_[index(current_)] += std::chrono::duration<double>(now - since_).count();
  since_ = now;
  const Part outer = current_;
  current_ = part;
  if (place_ != nullptr) {
    place_->part = part;
    ++place_->num_changes;
  }
  return outer;
}

void Profile::enter_step(std::int64_t step) {
  if (place_ == nullptr) return;
  place_->step = step;
  ++place_->num_changes;
}

void Profile::reset() {
  seconds_.fill(0);
  work_.fill({});
  since_ = Clock::now();
}

void Profile::record(const Work& work) {
  Work& sum = work_[index(current_)];
  const auto times = static_cast<double>(times_);
  sum.flops += times * work.flops;
  sum.bytes += times * work.bytes;
  sum.wire_bytes += times * work.wire_bytes;
  sum.control_bytes += times * work.control_bytes;
  sum.control_messages += times * work.control_messages;
}

double Profile::seconds(Part part) {
  enter(current_);
  return seconds_[index(part)];
}

double Profile::total_seconds() {
  enter(current_);
  return std::accumulate(seconds_.begin(), seconds_.end(), 0.0);
}

Work Profile::total_work() const {
  Work sum;
  for (const Work& work : work_) sum += work;
  return sum;
}

}  // namespace switchyard
