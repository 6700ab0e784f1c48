// Traces chosen steps of all ranks (`profile.steps`): where each rank's computation was and which
// exchanges were under way, in RUN/traces/steps-A-B.json, a file for steps that follow each other
// (trainer/run/meters/chrome_trace.hpp). Ranks have one clock there: that of rank 0's host, to what
// was measured. Of other steps nothing is kept.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/group/group.hpp"
#include "tensor/device.hpp"
#include "trainer/run/meters/chrome_trace.hpp"

namespace switchyard {

class StepTrace {
 public:
  // All outlive the trace. Every rank makes one.
  StepTrace(std::vector<std::int64_t> steps, std::string folder, Group& world, CollectiveLog& log,
            Device& device);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  bool wants(std::int64_t step) const;
  // Around a step that is wanted. end_step(): the host waits until the device has done the step.
  void begin_step(std::int64_t step);
  void end_step();
  // After each step, wanted or not: writes what is complete, if the next step is not wanted. The
  // file's path on rank 0, if one was written; else empty. Collective; IoError of any rank.
  std::string advance();
  // What is left; the same.
  std::string finish();

 private:
  std::string write();

  std::vector<std::int64_t> steps_;
  std::string folder_;
  Group& world_;
  CollectiveLog& log_;
  Device& device_;
  std::vector<PartMark> marks_;
  std::vector<CollectiveRecord> records_;
  TimePoint began_;            // of the step under way, by the stream,
  std::int64_t began_at_ = 0;  // and by this host's clock
  RankTimeline timeline_;      // not yet written
};

}  // namespace switchyard
