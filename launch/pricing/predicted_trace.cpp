#include "launch/pricing/predicted_trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "trainer/run/meters/chrome_trace.hpp"

namespace switchyard {

namespace {

std::int64_t nanoseconds(double seconds) {
  return std::llround(1e9 * seconds);
}

Operation operation_of(std::string_view kind) {
  constexpr std::array<std::pair<std::string_view, Operation>, 7> known{
      {{"all_reduce", Operation::all_reduce},
       {"reduce_scatter", Operation::reduce_scatter},
       {"all_gather", Operation::all_gather},
       {"all_to_all", Operation::all_to_all},
       {"broadcast", Operation::broadcast},
       {"send_receive", Operation::send_receive},
       {"values", Operation::gather_values}}};
  const auto found = std::ranges::find(known, kind, [](const auto& entry) { return entry.first; });
  return found == known.end() ? Operation::all_reduce : found->second;
}

// Kernels of one part and layer that follow each other are one span.
void add_kernel(std::vector<ComputationSpan>& spans, const WorkItem& item,
                const SimulatedSpan& span) {
  const std::int64_t begin = nanoseconds(span.begin), end = nanoseconds(span.end);
  if (!spans.empty()) {
    ComputationSpan& last = spans.back();
    if (last.part == item.part && last.layer == item.layer && last.backward == item.backward &&
        last.end == begin) {
      last.end = end;
      return;
    }
  }
  spans.push_back({item.part, item.layer, item.backward, begin, end});
}

ExchangeSpan exchange_span(const WorkRecord& record, const WorkItem& item,
                           const SimulatedSpan& span) {
  const WorkUnit& unit = record.works()[static_cast<std::size_t>(item.unit)];
  ExchangeSpan exchange;
  exchange.group = fmt::format("of {} ranks", unit.ranks.size);
  exchange.record.operation = operation_of(unit.kind);
  exchange.record.entered = nanoseconds(span.begin);
  exchange.record.left = nanoseconds(span.end);
  exchange.record.bytes_sent = std::llround(unit.wire_bytes);
  exchange.record.bytes_received = exchange.record.bytes_sent;
  exchange.record.part = item.part;
  exchange.record.layer = item.layer;
  exchange.record.backward = item.backward;
  exchange.record.step = 1;
  return exchange;
}

RankTimeline timeline_of(const RankPlan& rank, const UnitPrices& prices) {
  std::vector<SimulatedSpan> spans;
  const StepTimes times = simulate(*rank.record, prices, &spans);
  RankTimeline timeline{.rank = rank.rank, .host = "foretold", .steps = {}};
  StepSpans& step = timeline.steps.emplace_back();
  step.step = 1;
  step.end = nanoseconds(times.seconds);
  for (const SimulatedSpan& span : spans) {
    const WorkItem& item = rank.record->items()[static_cast<std::size_t>(span.item)];
    if (is_spill(rank.record->works()[static_cast<std::size_t>(item.unit)].kind)) continue;
    if (span.is_exchange)
      step.exchanges.push_back(exchange_span(*rank.record, item, span));
    else
      add_kernel(step.computation, item, span);
  }
  return timeline;
}

}  // namespace

std::string predicted_trace(const Plan& plan, const MachineProfile& profile,
                            const MachineSetting& setting, const PredictionOptions& options,
                            std::size_t most_ranks) {
  std::string events;
  PriceGaps gaps;
  for (std::size_t i = 0; i < plan.ranks.size() && i < most_ranks; ++i) {
    const RankPlan& rank = plan.ranks[i];
    const UnitPrices prices =
        prices_of(*rank.record, rank.rank, profile, setting, options.rows, gaps);
    events += chrome_events(timeline_of(rank, prices), 0);
  }
  events.erase(events.size() - 2);  // the last ",\n"
  return "{\"traceEvents\":[\n" + events +
         "\n],\n\"displayTimeUnit\":\"ms\",\n\"otherData\":{\"format\":\"switchyard predicted "
         "trace\"}}\n";
}

}  // namespace switchyard
