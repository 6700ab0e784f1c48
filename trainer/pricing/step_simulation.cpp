#include "trainer/pricing/step_simulation.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <numeric>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// What goes on beside the compute stream.
enum class Lane : std::uint8_t { exchanges, copies };
constexpr std::size_t num_lanes = 2;

class Streams {
 public:
  Streams(double slowdown, std::vector<SimulatedSpan>* spans)
      : slowdown_(1 + slowdown), spans_(spans) {}

  double now() const { return now_; }

  void compute(double seconds) {
    while (seconds > 0 && any_under_way()) {
      const double factor = lane(Lane::exchanges).under_way.empty() ? 1 : slowdown_;
      const double both = std::min(seconds, time_to_next(factor) / factor);
      seconds -= both;
      pass(both * factor, factor);
    }
    now_ += seconds;
  }

  void start(Lane on, std::int64_t item, double seconds) {
    LaneState& state = lane(on);
    if (state.under_way.empty()) state.begin = now_;
    state.under_way.push_back({.number = std::ssize(lane_of_), .item = item, .left = seconds});
    lane_of_.push_back(on);
  }

  // The number counts from 0 in the order of starts.
  void wait(std::int64_t number) {
    const std::deque<Work>& queue = lane(lane_of_[static_cast<std::size_t>(number)]).under_way;
    while (!queue.empty() && queue.front().number <= number) pass(time_to_next(1), 1);
  }
  void wait_all() {
    while (any_under_way()) pass(time_to_next(1), 1);
  }

 private:
  struct Work {
    std::int64_t number = 0;
    std::int64_t item = 0;
    double left = 0;  // seconds, alone
  };
  struct LaneState {
    std::deque<Work> under_way;  // in the order of the stream: the first is at work
    double begin = 0;            // of the first
  };

  LaneState& lane(Lane which) { return lanes_[static_cast<std::size_t>(which)]; }
  bool any_under_way() const {
    return std::ranges::any_of(lanes_,
                               [](const LaneState& each) { return !each.under_way.empty(); });
  }

  // Until the first of a lane is done, where exchanges go at 1 / slower of their speed.
  double time_to_next(double slower) {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < num_lanes; ++i)
      if (!lanes_[i].under_way.empty())
        least = std::min(least, lanes_[i].under_way.front().left * speed_cost(i, slower));
    return least;
  }
  static double speed_cost(std::size_t which, double slower) {
    return which == static_cast<std::size_t>(Lane::exchanges) ? slower : 1;
  }

  // Lets so many seconds go by, in which no lane ends more than its first.
  void pass(double seconds, double slower) {
    now_ += seconds;
    for (std::size_t i = 0; i < num_lanes; ++i) {
      LaneState& state = lanes_[i];
      if (state.under_way.empty()) continue;
      Work& first = state.under_way.front();
      first.left -= seconds / speed_cost(i, slower);
      // Less than what rounding leaves.
      if (first.left > 1e-12 * now_) continue;
      if (spans_ != nullptr) spans_->push_back({true, first.item, state.begin, now_});
      state.under_way.pop_front();
      state.begin = now_;
    }
  }

  double slowdown_;
  std::vector<SimulatedSpan>* spans_;
  std::array<LaneState, num_lanes> lanes_;
  std::vector<Lane> lane_of_;  // by number
  double now_ = 0;
};

template <std::size_t N>
double sum_of(const std::array<double, N>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

double StepTimes::wait_seconds() const {
  return sum_of(waits);
}
double StepTimes::exchange_seconds() const {
  return sum_of(exchanges);
}
double StepTimes::hidden_seconds() const {
  return std::max(0.0, exchange_seconds() - wait_seconds());
}

StepTimes simulate(const WorkRecord& record, const UnitPrices& prices,
                   std::vector<SimulatedSpan>* spans) {
  expect(prices.seconds.size() == record.works().size(), "a price for each unit of the record");
  Streams streams(prices.overlap_slowdown, spans);
  StepTimes times;
  double lag = 0;  // of the fullest rank behind this one
  for (std::size_t i = 0; i < record.items().size(); ++i) {
    const WorkItem& item = record.items()[i];
    const auto part = static_cast<std::size_t>(item.part);
    const double begin = streams.now();
    if (item.what == WorkItem::What::wait) {
      streams.wait(item.unit);
      times.waits[part] += streams.now() - begin;
    } else {
      const auto unit = static_cast<std::size_t>(item.unit);
      const double seconds = static_cast<double>(item.times) * prices.seconds[unit];
      if (item.what == WorkItem::What::exchange) {
        const bool is_copy = is_spill(record.works()[unit].kind);
        const double late = is_copy ? 0 : std::exchange(lag, 0);
        streams.start(is_copy ? Lane::copies : Lane::exchanges, static_cast<std::int64_t>(i),
                      seconds + late);
        times.exchanges[part] += seconds + late;
      } else {
        streams.compute(seconds);
        if (!prices.lag.empty()) lag += static_cast<double>(item.times) * prices.lag[unit];
        if (spans != nullptr)
          spans->push_back({false, static_cast<std::int64_t>(i), begin, streams.now()});
      }
    }
    times.parts[part] += streams.now() - begin;
  }
  const double begin = streams.now();
  streams.wait_all();  // the step ends when nothing is left on either
  const auto other = static_cast<std::size_t>(Part::other);
  times.waits[other] += streams.now() - begin;
  times.parts[other] += streams.now() - begin;
  times.seconds = streams.now();
  return times;
}

}  // namespace switchyard
