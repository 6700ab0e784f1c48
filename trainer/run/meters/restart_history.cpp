#include "trainer/run/meters/restart_history.hpp"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

nlohmann::json read_json(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return nullptr;
  return nlohmann::json::parse(read_file(path), nullptr, false);
}

template <typename T>
T value_or(const nlohmann::json& json, const char* key, T otherwise) {
  if (!json.is_object() || !json.contains(key)) return otherwise;
  const nlohmann::json& value = json[key];
  const bool fits = std::is_same_v<T, std::string> ? value.is_string() : value.is_number();
  return fits ? value.get<T>() : otherwise;
}

struct Ending {
  bool done = false;
  std::string reason;
};

Ending read_ending(const std::string& path) {
  const nlohmann::json json = read_json(path);
  if (!json.is_object())
    return {.reason = "killed without a word (kill -9, no memory left, or the death of a node)"};
  const auto code = value_or(json, "code", static_cast<std::int64_t>(ExitCode::internal));
  return {.done = code == static_cast<std::int64_t>(ExitCode::done),
          .reason = value_or(json, "reason", fmt::format("exit code {}", code))};
}

// When the checkpoint was complete: its manifest is the last file written.
double time_of_checkpoint(const std::string& folder) {
  struct stat status {};
  if (folder.empty() || ::stat((folder + "/manifest.json").c_str(), &status) != 0) return 0;
  return static_cast<double>(status.st_mtim.tv_sec) +
         static_cast<double>(status.st_mtim.tv_nsec) * 1e-9;
}

}  // namespace

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// None before the first start, or if the file cannot be read as ours.
std::optional<RestartHistory::Record> RestartHistory::read(const std::string& path) {
  const nlohmann::json json = read_json(path);
  if (!json.is_object()) return std::nullopt;
  return Record{
      .restarts = value_or(json, "restarts", std::int64_t{0}),
      .starts_without_progress = value_or(json, "starts_without_progress", std::int64_t{0}),
      .first_step = value_or(json, "first_step", std::int64_t{0}),
      .newest_step = value_or(json, "newest_step", std::int64_t{0}),
      .started = value_or(json, "started", 0.0),
      .counted_until = value_or(json, "counted_until", 0.0)};
}

void RestartHistory::write() const {
  const nlohmann::ordered_json json = {{"restarts", record_.restarts},
                                       {"starts_without_progress", record_.starts_without_progress},
                                       {"first_step", record_.first_step},
                                       {"newest_step", record_.newest_step},
                                       {"started", record_.started},
                                       {"counted_until", record_.counted_until}};
  write_file_atomically(folder_ + "/restarts.json", json.dump(2) + "\n");
}

RestartHistory::RestartHistory(const std::string& folder, std::int64_t newest_step, bool anew,
                               double now)
    : folder_(folder) {
  const std::string exit_path = folder_ + "/exit.json";
  const std::optional<Record> earlier = anew ? std::nullopt : read(folder_ + "/restarts.json");
  const Ending ending = read_ending(exit_path);
  reason_ = ending.reason;
  is_restart_ = earlier && !ending.done;
  if (is_restart_) {
    record_ = *earlier;
    record_.restarts += 1;
  } else {
    record_.restarts = earlier ? earlier->restarts : 0;
    record_.first_step = newest_step;
    record_.counted_until = now;
  }
  // A newer checkpoint may be progress; begin() knows, when the state is restored.
  const bool refused = record_.starts_without_progress > max_restarts_without_progress &&
                       newest_step <= record_.newest_step;
  record_.newest_step = newest_step;
  record_.started = now;
  record_.starts_without_progress = refused ? 0 : record_.starts_without_progress + 1;
  write();
  if (refused)
    throw ProgressError(fmt::format(
        "no progress: {} restarts in a row, and no checkpoint after step {}; the last ended so: "
        "{}. "
        "Not started again. Mend the cause (logs/ and the job's log tell it) or save more often "
        "(checkpoint.every); then start the run once more",
        max_restarts_without_progress, record_.first_step, reason_));
  std::error_code ignored;
  fs::remove(exit_path, ignored);
}

std::optional<RestartMetrics> RestartHistory::begin(std::int64_t step,
                                                    const std::string& checkpoint, double now) {
  std::optional<RestartMetrics> restart;
  if (is_restart_) {
    if (step > record_.first_step) record_.starts_without_progress = 1;
    // Clocks of hosts may differ.
    const double useful_until = std::max(record_.counted_until, time_of_checkpoint(checkpoint));
    restart = RestartMetrics{
        .restarts = record_.restarts,
        .step = step,
        .lost_steps = std::max(std::int64_t{0}, last_step_in(folder_ + "/metrics.jsonl") - step),
        .lost_seconds = std::max(0.0, now - useful_until),
        .reason = reason_};
  }
  record_.first_step = step;
  record_.counted_until = now;
  write();
  return restart;
}

std::string to_sentence(const RestartMetrics& restart) {
  return fmt::format(
      "restart {} of this run, from step {}; {} steps and {:.1f} s lost; it had ended so: {}",
      restart.restarts, restart.step, restart.lost_steps, restart.lost_seconds, restart.reason);
}

}  // namespace switchyard
