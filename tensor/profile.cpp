#include "tensor/profile.hpp"

#include <numeric>

#include "tensor/work_record.hpp"

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
  const Part outer = current();
  if (begins_.size() >= most_begins && marks_ == nullptr) settle(begins_.size() / 2);
  begins_.push_back({part, clock_.mark()});
  if (marks_ != nullptr) keep_mark();
  if (place_ != nullptr) {
    place_->part = part;
    ++place_->num_changes;
  }
  return outer;
}

void Profile::keep_mark() {
  PartMark mark{.part = begins_.back().part, .time = begins_.back().time};
  if (place_ != nullptr) {
    mark.layer = place_->layer;
    mark.backward = place_->backward;
  }
  marks_->push_back(mark);
}

void Profile::keep_marks_in(std::vector<PartMark>* marks) {
  marks_ = marks;
  if (marks_ != nullptr) enter(current());
}

void Profile::enter_step(std::int64_t step) {
  if (place_ == nullptr) return;
  place_->step = step;
  ++place_->num_changes;
}

void Profile::settle(std::size_t end) {
  for (std::size_t i = 0; i < end; ++i)
    seconds_[index(begins_[i].part)] +=
        clock_.seconds_between(begins_[i].time, begins_[i + 1].time);
  begins_.erase(begins_.begin(), begins_.begin() + static_cast<std::ptrdiff_t>(end));
  clock_.forget_before(begins_.front().time);
}

void Profile::reset() {
  seconds_.fill(0);
  work_.fill({});
  begins_ = {{current(), clock_.mark()}};
  clock_.forget_before(begins_.front().time);
}

void Profile::record(const Work& work) {
  const auto times = static_cast<double>(times_);
  const Work all{.flops = times * work.flops,
                 .bytes = times * work.bytes,
                 .wire_bytes = times * work.wire_bytes,
                 .control_bytes = times * work.control_bytes,
                 .control_messages = times * work.control_messages};
  work_[index(current())] += all;
  work_ever_ += all;
}

std::int64_t Profile::note(const WorkUnit& unit) {
  if (work_record_ == nullptr) return 0;
  return work_record_->add(unit, {.part = current(),
                                  .backward = place_ != nullptr && place_->backward,
                                  .layer = place_ != nullptr ? place_->layer : -1,
                                  .times = times_});
}

void Profile::note_wait(std::int64_t exchange) {
  if (work_record_ == nullptr) return;
  work_record_->add_wait(exchange, {.part = current(),
                                    .backward = place_ != nullptr && place_->backward,
                                    .layer = place_ != nullptr ? place_->layer : -1,
                                    .times = times_});
}

double Profile::seconds(Part part) {
  enter(current());
  settle(begins_.size() - 1);
  return seconds_[index(part)];
}

double Profile::total_seconds() {
  enter(current());
  settle(begins_.size() - 1);
  return std::accumulate(seconds_.begin(), seconds_.end(), 0.0);
}

double Profile::known_seconds(Part part) {
  enter(current());
  std::size_t end = begins_.size() - 1;
  while (end > 0 && !clock_.has_come(begins_[end].time)) --end;
  settle(end);
  return seconds_[index(part)];
}

Work Profile::total_work() const {
  Work sum;
  for (const Work& work : work_) sum += work;
  return sum;
}

}  // namespace switchyard
