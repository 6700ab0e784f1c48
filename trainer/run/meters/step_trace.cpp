#include "trainer/run/meters/step_trace.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/files/atomic_file.hpp"
#include "trainer/agreement.hpp"
#include "trainer/run/meters/clock_offsets.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string piece_of(const std::string& pieces, int rank) {
  return fmt::format("{}/rank-{}.json", pieces, rank);
}

// The events of all ranks; what the format calls otherData says how well the clocks agree.
std::string whole_trace(const std::string& pieces, const std::vector<ClockOffset>& offsets) {
  std::string text = "{\"traceEvents\":[\n";
  for (std::size_t rank = 0; rank < offsets.size(); ++rank)
    text += read_file(piece_of(pieces, static_cast<int>(rank)));
  text.resize(text.rfind(','));
  text += "\n],\n\"displayTimeUnit\":\"ms\",\n\"otherData\":{\"format\":\"switchyard trace\"";
  for (std::size_t rank = 0; rank < offsets.size(); ++rank)
    text +=
        fmt::format(",\n\"clock of rank {}\":\"{:.3f} us ahead of that of rank 0, to {:.3f} us\"",
                    rank, 1e-3 * static_cast<double>(offsets[rank].nanoseconds),
                    1e-3 * static_cast<double>(offsets[rank].uncertainty));
  return text + "}}\n";
}

}  // namespace

StepTrace::StepTrace(std::vector<std::int64_t> steps, std::string folder, Group& world,
                     CollectiveLog& log, Device& device)
    : steps_(std::move(steps)),
      folder_(std::move(folder)),
      world_(world),
      log_(log),
      device_(device) {
  timeline_.rank = world.rank();
  timeline_.host = world.topology().name_of(world.topology().host());
}

StepTrace::~StepTrace() {
  device_.profile().keep_marks_in(nullptr);
  log_.keep_in(nullptr);
}

bool StepTrace::wants(std::int64_t step) const {
  return std::ranges::find(steps_, step) != steps_.end();
}

void StepTrace::begin_step(std::int64_t step) {
  marks_.clear();
  records_.clear();
  timeline_.steps.push_back({.step = step});
  device_.compute_stream().wait_host();  // so that both clocks mean one moment
  began_ = device_.compute_stream().mark();
  began_at_ = system_nanoseconds();
  device_.profile().keep_marks_in(&marks_);
  log_.keep_in(&records_);
}

void StepTrace::end_step() {
  Stream& stream = device_.compute_stream();
  const TimePoint ended = stream.mark();
  StepSpans& step = timeline_.steps.back();
  const auto time_of = [&](TimePoint point) {
    return began_at_ + std::llround(1e9 * stream.seconds_between(began_, point));
  };
  step.begin = began_at_;
  step.end = time_of(ended);
  // The profile lets go of what it has measured only when nobody keeps marks.
  for (std::size_t i = 0; i < marks_.size(); ++i) {
    const PartMark& mark = marks_[i];
    const ComputationSpan span{
        .part = mark.part,
        .layer = mark.layer,
        .backward = mark.backward,
        .begin = time_of(mark.time),
        .end = i + 1 < marks_.size() ? time_of(marks_[i + 1].time) : step.end};
    if (span.end > span.begin) step.computation.push_back(span);
  }
  device_.profile().keep_marks_in(nullptr);
  log_.keep_in(nullptr);
  const LogState state = log_.read();
  for (const CollectiveRecord& record : records_)
    step.exchanges.push_back({.record = record, .group = state.groups[record.group].name.data()});
}

std::string StepTrace::advance() {
  if (timeline_.steps.empty() || wants(timeline_.steps.back().step + 1)) return {};
  return write();
}

std::string StepTrace::finish() {
  return timeline_.steps.empty() ? std::string() : write();
}

std::string StepTrace::write() {
  const std::int64_t first = timeline_.steps.front().step;
  const std::int64_t last = timeline_.steps.back().step;
  const std::string path = first == last ? fmt::format("{}/step-{}.json", folder_, first)
                                         : fmt::format("{}/steps-{}-{}.json", folder_, first, last);
  const std::string pieces = path + ".parts";
  const std::vector<ClockOffset> offsets = host_clock_offsets(world_);
  std::vector<std::int64_t> begins(static_cast<std::size_t>(world_.size()));
  const std::int64_t begin = timeline_.steps.front().begin;
  world_.all_gather_values({&begin, 1}, begins);
  // Rank 0's begin, on this rank's clock.
  const std::int64_t origin =
      begins.front() + offsets[static_cast<std::size_t>(world_.rank())].nanoseconds;
  run_together(world_, [&] {
    if (world_.rank() != 0) return;
    std::error_code error;
    fs::create_directories(pieces, error);
    if (error) throw IoError(fmt::format("{}: cannot be created: {}", pieces, error.message()));
  });
  run_together(world_, [&] {
    write_file_atomically(piece_of(pieces, world_.rank()), chrome_events(timeline_, origin));
  });
  timeline_.steps.clear();
  run_together(world_, [&] {
    if (world_.rank() != 0) return;
    write_file_atomically(path, whole_trace(pieces, offsets));
    std::error_code ignored;
    fs::remove_all(pieces, ignored);
  });
  return path;
}

}  // namespace switchyard
