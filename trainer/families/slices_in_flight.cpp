#include "trainer/families/slices_in_flight.hpp"

#include <algorithm>
#include <utility>

#include "kernels/threads.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t most_bytes = std::int64_t{640} << 20;

}  // namespace

SlicesInFlight::SlicesInFlight(std::int64_t largest)
    : most_(static_cast<std::size_t>(
          std::clamp<std::int64_t>(most_bytes / std::max<std::int64_t>(largest, 1), 1,
                                   std::int64_t{2} * kernels::num_threads()))) {}

SliceBuffer& SlicesInFlight::take() {
  while (begun_.size() >= most_) end_oldest();
  if (free_.empty()) {
    taken_ = std::make_unique<SliceBuffer>();
  } else {
    taken_ = std::move(free_.back());
    free_.pop_back();
  }
  return *taken_;
}

void SlicesInFlight::begin(std::function<void()> work, std::function<void()> end) {
  begun_.push_back({std::move(taken_), std::move(end), {}});
  begun_.back().work = std::async(std::launch::async, std::move(work));
}

void SlicesInFlight::finish() {
  while (!begun_.empty()) end_oldest();
}

void SlicesInFlight::end_oldest() {
  Begun oldest = std::move(begun_.front());
  begun_.pop_front();
  oldest.work.get();
  if (oldest.end) oldest.end();
  free_.push_back(std::move(oldest.slice));
}

}  // namespace switchyard
