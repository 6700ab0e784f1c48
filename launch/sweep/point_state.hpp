// How a point of a study stands, from what lies in its folder.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "launch/sweep/study_points.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

// waiting: never started. stopped: it goes on from its newest checkpoint. failed: it would fail
// again, and is not started by itself.
enum class PointStatus : std::uint8_t { waiting, running, stopped, failed, done };
constexpr std::array<std::string_view, 5> choice_names(PointStatus) {
  return {"waiting", "running", "stopped", "failed", "done"};
}

struct PointState {
  PointStatus status = PointStatus::waiting;
  std::int64_t exit_code = -1;  // of the last end
  std::int64_t step = 0;        // at which it ended
  std::string reason;
  std::string ended;  // UTC
};

// Reads run.lock, exit.json and attempt.json of the point's folder.
PointState state_of(const std::string& folder, std::int64_t num_steps);

// attempt.json: an end of which the run itself could leave no word. Atomic; IoError.
void write_attempt(const std::string& folder, int exit_code, const std::string& reason);
void forget_attempt(const std::string& folder);

// Makes the point's folder, with point.yaml, the configuration that it trains, and point.json, what
// was planned. A point that has checkpoints goes on from the newest: a branch, too. IoError.
void prepare_point(const Study& study, const StudyPoint& point);

}  // namespace switchyard
