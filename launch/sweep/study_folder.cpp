#include "launch/sweep/study_folder.hpp"

#include <fmt/core.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "launch/launcher.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
constexpr const char* format_name = "switchyard study folder";
constexpr std::string_view marker_name = "study.json";

// A sweep that was killed at once leaves at most a part of the marker.
bool holds_files(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (!entry.path().filename().string().starts_with(marker_name)) return true;
  return false;
}

}  // namespace

void claim_study_folder(const StudyConfig& study) {
  const std::string marker = fmt::format("{}/{}", study.output, marker_name);
  std::error_code error;
  if (fs::is_regular_file(marker, error)) {
    const nlohmann::json json = nlohmann::json::parse(read_file(marker), nullptr, false);
    const std::string name =
        json.is_object() && json.value("format", "") == format_name ? json.value("name", "") : "";
    if (name == study.name) return;
    throw ConfigError(
        fmt::format("study.output: {} holds the study {}, and this is {}: choose another folder",
                    study.output, name.empty() ? "of another program" : name, study.name));
  }
  if (holds_files(study.output))
    throw ConfigError(fmt::format(
        "study.output: {} holds files, and no study.json says that a study made it: choose another "
        "folder",
        study.output));
  fs::create_directories(study.output, error);
  if (error)
    throw IoError(
        fmt::format("study.output: {} cannot be created: {}", study.output, error.message()));
  const nlohmann::ordered_json json = {
      {"format", format_name}, {"format_version", 1}, {"name", study.name}, {"file", study.path}};
  write_file_atomically(marker,
                        json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

FileLock hold_study_on_this_host(const StudyConfig& study) {
  FileLock lock(fmt::format("{}/sweep-{}.lock", study.output, host_name()));
  if (const auto holder = lock.try_take())
    throw ConfigError(fmt::format(
        "study.output: another sweep runs the study {} on this machine ({}): wait for it or stop "
        "it",
        study.name, holder->name.empty() ? "which has not said its name yet" : holder->name));
  return lock;
}

}  // namespace switchyard
