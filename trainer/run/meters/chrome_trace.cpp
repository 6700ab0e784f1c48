#include "trainer/run/meters/chrome_trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

constexpr std::size_t computation_track = 0;

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class Events {
 public:
  Events(int rank, std::int64_t origin) : rank_(rank), origin_(origin) {}

  void name(const std::string& what, std::size_t track, const std::string& name) {
    text_ += fmt::format(
        "{{\"ph\":\"M\",\"name\":{},\"pid\":{},\"tid\":{},\"args\":{{\"name\":{}}}}},\n",
        quoted(what), rank_, track, quoted(name));
  }
  // arguments: members of an object.
  void span(std::string_view category, const std::string& name, std::size_t track,
            std::int64_t begin, std::int64_t end, const std::string& arguments) {
    text_ += fmt::format(
        "{{\"ph\":\"X\",\"cat\":\"{}\",\"name\":{},\"pid\":{},\"tid\":{},\"ts\":{:.3f},\"dur\":{:."
        "3f},"
        "\"args\":{{{}}}}},\n",
        category, quoted(name), rank_, track, 1e-3 * static_cast<double>(begin - origin_),
        1e-3 * static_cast<double>(end - begin), arguments);
  }
  const std::string& text() const { return text_; }

 private:
  int rank_;
  std::int64_t origin_;
  std::string text_;
};

std::string place_of(std::int64_t step, std::int32_t layer, bool backward) {
  std::string place = fmt::format("\"step\":{}", step);
  if (layer >= 0)
    place += fmt::format(",\"layer\":{},\"pass\":\"{}\"", layer, backward ? "backward" : "forward");
  return place;
}

void add_step(Events& events, const StepSpans& step) {
  events.span("step", fmt::format("step {}", step.step), computation_track, step.begin, step.end,
              fmt::format("\"step\":{}", step.step));
  for (const ComputationSpan& span : step.computation)
    events.span("computation", std::string(name_of(span.part)), computation_track, span.begin,
                span.end, place_of(step.step, span.layer, span.backward));
}

void add_exchange(Events& events, const ExchangeSpan& exchange, std::size_t track) {
  const CollectiveRecord& record = exchange.record;
  const double waited =
      record.waited > 0 ? 1e-3 * static_cast<double>(record.left - record.waited) : 0;
  events.span(
      "exchange", fmt::format("{} {}", name_of(record.operation), exchange.group), track,
      record.entered, record.left,
      place_of(record.step, record.layer, record.backward) +
          fmt::format(",\"operation\":\"{}\",\"group\":{},\"part\":\"{}\","
                      "\"bytes_sent\":{},\"bytes_received\":{},\"waited_us\":{:.3f}",
                      name_of(record.operation), quoted(exchange.group), name_of(record.part),
                      record.bytes_sent, record.bytes_received, waited));
}

}  // namespace

std::vector<std::size_t> tracks_of(std::span<const ExchangeSpan> exchanges) {
  std::vector<std::int64_t> free_from;
  std::vector<std::size_t> tracks;
  for (const ExchangeSpan& exchange : exchanges) {
    const auto found = std::ranges::find_if(
        free_from, [&](std::int64_t end) { return end <= exchange.record.entered; });
    tracks.push_back(static_cast<std::size_t>(found - free_from.begin()));
    if (found == free_from.end())
      free_from.push_back(exchange.record.left);
    else
      *found = exchange.record.left;
  }
  return tracks;
}

std::string chrome_events(const RankTimeline& timeline, std::int64_t origin) {
  Events events(timeline.rank, origin);
  events.name("process_name", computation_track,
              fmt::format("rank {} ({})", timeline.rank, timeline.host));
  events.name("thread_name", computation_track, "computation");
  std::vector<ExchangeSpan> exchanges;
  for (const StepSpans& step : timeline.steps) {
    add_step(events, step);
    exchanges.insert(exchanges.end(), step.exchanges.begin(), step.exchanges.end());
  }
  std::ranges::stable_sort(exchanges, {}, [](const ExchangeSpan& e) { return e.record.entered; });
  const std::vector<std::size_t> tracks = tracks_of(exchanges);
  std::size_t num_tracks = 0;
  for (std::size_t i = 0; i < exchanges.size(); ++i) {
    num_tracks = std::max(num_tracks, tracks[i] + 1);
    add_exchange(events, exchanges[i], computation_track + 1 + tracks[i]);
  }
  for (std::size_t track = 0; track < num_tracks; ++track)
    events.name("thread_name", computation_track + 1 + track,
                num_tracks == 1 ? "exchanges" : fmt::format("exchanges {}", track + 1));
  return events.text();
}

}  // namespace switchyard
