#include "tensor/plan_stream.hpp"

#include <algorithm>
#include <bit>

namespace switchyard {

namespace {

class PlannedEnd final : public Event::Pending {
 public:
  explicit PlannedEnd(double seconds) : seconds_(seconds) {}
  bool test() override { return true; }
  void wait_host() override {}
  void wait(Stream& stream) override {
    if (auto* const clock = dynamic_cast<PlanStream*>(&stream)) clock->wait_until(seconds_);
  }

 private:
  double seconds_;
};

}  // namespace

Event PlanStream::record() {
  return Event(std::make_unique<PlannedEnd>(seconds()));
}

TimePoint PlanStream::mark() {
  return {std::bit_cast<std::int64_t>(seconds())};
}

double PlanStream::seconds_between(TimePoint from, TimePoint to) {
  return std::bit_cast<double>(to.number) - std::bit_cast<double>(from.number);
}

double PlanStream::seconds() const {
  return profile_ == nullptr ? 0 : idle_ + profile_->work_ever().*figure_ / per_second_;
}

void PlanStream::wait_until(double seconds) {
  idle_ += std::max(0.0, seconds - this->seconds());
}

}  // namespace switchyard
