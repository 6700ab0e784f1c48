#include "trainer/pricing/step_simulation.hpp"

#include <algorithm>
#include <deque>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

class Streams {
 public:
  Streams(double slowdown, std::vector<SimulatedSpan>* spans)
      : slowdown_(1 + slowdown), spans_(spans) {}

  double now() const { return now_; }

  void compute(double seconds) {
    while (!under_way_.empty() && seconds > 0) {
      Exchange& first = under_way_.front();
      const double both = std::min(seconds, first.left);
      now_ += both * slowdown_;
      seconds -= both;
      first.left -= both;
      if (first.left <= 0) end_first();
    }
    now_ += seconds;
  }

  void start_exchange(std::int64_t item, double seconds) {
    if (under_way_.empty()) begin_ = now_;
    under_way_.push_back({.number = num_started_++, .item = item, .left = seconds});
  }

  // The number counts from 0 in the order of starts.
  void wait(std::int64_t number) {
    while (!under_way_.empty() && under_way_.front().number <= number) {
      now_ += under_way_.front().left;
      end_first();
    }
  }
  void wait_all() { wait(num_started_); }

 private:
  struct Exchange {
    std::int64_t number = 0;
    std::int64_t item = 0;
    double left = 0;  // seconds, alone
  };

  void end_first() {
    if (spans_ != nullptr) spans_->push_back({true, under_way_.front().item, begin_, now_});
    under_way_.pop_front();
    begin_ = now_;
  }

  double slowdown_;
  std::vector<SimulatedSpan>* spans_;
  std::deque<Exchange> under_way_;  // in the order of the stream: the first is at work
  double begin_ = 0;                // of the first
  double now_ = 0;
  std::int64_t num_started_ = 0;
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
        streams.start_exchange(static_cast<std::int64_t>(i), seconds + lag);
        times.exchanges[part] += seconds + lag;
        lag = 0;
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
