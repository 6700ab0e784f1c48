// A rank's time line as events of Chrome's trace format (JSON), which Perfetto and chrome://tracing
// show: a process a rank, one track for its computation, further ones for its exchanges. Events of
// one track nest or follow each other, as that format asks; exchanges that are under way at once
// lie on tracks of their own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/group/collective_log.hpp"
#include "tensor/profile.hpp"

namespace switchyard {

// Nanoseconds of one rank's clock.
struct ComputationSpan {
  Part part = Part::other;
  std::int32_t layer = -1;  // -1: outside the layers
  bool backward = false;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct ExchangeSpan {
  CollectiveRecord record;  // entered, waited and left
  std::string group;
};

struct StepSpans {
  std::int64_t step = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::vector<ComputationSpan> computation{};  // in order, without overlaps
  std::vector<ExchangeSpan> exchanges{};
};

struct RankTimeline {
  int rank = 0;
  std::string host;
  std::vector<StepSpans> steps;
};

// Events, each on a line that ends in ",\n". Times become microseconds since `origin`, which is on
// the same clock as the spans.
std::string chrome_events(const RankTimeline& timeline, std::int64_t origin);

// For each interval, in order of their begins, the lowest track on which none is under way.
std::vector<std::size_t> tracks_of(std::span<const ExchangeSpan> exchanges);

}  // namespace switchyard
