#include "launch/sweep/point_state.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/files/atomic_file.hpp"
#include "data/files/file_lock.hpp"
#include "launch/config/config_file.hpp"
#include "tensor/error.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/watch/exit_file.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t max_bytes = 1 << 20;

// Null if there is no such file or nothing that can be read.
nlohmann::json json_in(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return {};
  return nlohmann::json::parse(read_file(path, max_bytes), nullptr, false);
}

// Codes of ends that another start may mend by itself: a request, a hang, a lost rank.
bool goes_on(std::int64_t code) {
  return code == static_cast<int>(ExitCode::stopped) || code == static_cast<int>(ExitCode::hang) ||
         code == static_cast<int>(ExitCode::lost_rank);
}

std::string attempt_file(const std::string& folder) {
  return folder + "/attempt.json";
}

Json json_of(const PointPlan& plan, const StudyPoint& point) {
  return {{"num_parameters", plan.num_parameters},
          {"num_active_parameters", plan.num_active_parameters},
          {"tokens_per_step", plan.tokens_per_step},
          {"flops_per_token", plan.flops_per_token},
          {"flops", point.flops()},
          {"memory_bytes", plan.memory_bytes},
          {"wire_bytes", plan.wire_bytes},
          {"seconds", nullptr}};
}

}  // namespace

PointState state_of(const std::string& folder, std::int64_t num_steps) {
  PointState state;
  if (FileLock::is_held(folder + "/run.lock")) {
    state.status = PointStatus::running;
    return state;
  }
  nlohmann::json end = json_in(folder + "/exit.json");
  if (!end.is_object()) end = json_in(attempt_file(folder));
  std::error_code error;
  if (!end.is_object()) {
    // A start of training removes exit.json: it was killed.
    if (fs::exists(folder + "/run.json", error)) state.status = PointStatus::stopped;
    return state;
  }
  state.exit_code = end.value("code", std::int64_t{-1});
  state.reason = end.value("reason", "");
  state.step = end.value("step", std::int64_t{0});
  state.ended = end.value("time", "");
  if (state.exit_code == 0)
    state.status = state.step >= num_steps ? PointStatus::done : PointStatus::stopped;
  else
    state.status = goes_on(state.exit_code) ? PointStatus::stopped : PointStatus::failed;
  return state;
}

void write_attempt(const std::string& folder, int exit_code, const std::string& reason) {
  const Json json = {{"code", exit_code}, {"reason", reason}, {"step", 0}, {"time", utc_now()}};
  write_file_atomically(attempt_file(folder),
                        json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void forget_attempt(const std::string& folder) {
  ::unlink(attempt_file(folder).c_str());
}

void prepare_point(const Study& study, const StudyPoint& point) {
  const std::string folder = study.folder_of(point);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    throw IoError(fmt::format("study.output: {} cannot be created: {}", folder, error.message()));
  Config config = point.config;
  if (!checkpoint_steps_in(folder + "/checkpoints").empty())
    config.checkpoint.resume = name_of(Resume::automatic);
  write_file_atomically(folder + "/point.yaml", to_yaml(config));
  const Json json = {{"format", "switchyard point"},
                     {"format_version", 1},
                     {"study", study.file.name},
                     {"set", point.set},
                     {"settings", point.settings_text},
                     {"repeat", point.repeat},
                     {"configuration", point.configuration},
                     {"config_hash", point.config_hash},
                     {"num_ranks", point.ranks},
                     {"parent", point.parent},
                     {"parent_step", point.parent_step},
                     {"planned", json_of(point.plan, point)}};
  write_file_atomically(folder + "/point.json",
                        json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace switchyard
