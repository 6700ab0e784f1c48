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

}  // namespace

void claim_study_folder(const StudyConfig& study) {
  const std::string marker = study.output + "/study.json";
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
  if (fs::exists(study.output, error) && !fs::is_empty(study.output, error))
    throw ConfigError(fmt::format(
        "study.output: {} holds files, and no study.json says that a study made it: choose another "
        "folder",
        study.output));
  fs::create_directories(study.output + "/points", error);
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
