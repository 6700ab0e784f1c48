#include "trainer/run/run_marker.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "/run.json";
constexpr const char* format_name = "switchyard run";
constexpr std::int64_t max_bytes = 1 << 16;

}  // namespace

std::optional<RunMarker> read_run_marker(const std::string& run_folder) {
  const std::string path = run_folder + file_name;
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(path, error))) return std::nullopt;
  std::string text;
  try {
    text = read_file(path, max_bytes);
  } catch (const IoError&) {
    return std::nullopt;
  }
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    if (json.at("format") != format_name) return std::nullopt;
    return RunMarker{.course = json.value("course", ""),
                     .begun_by = {.id = json.value("begun_by_job", ""),
                                  .num_restarts = json.value("begun_after_restarts", 0)}};
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

void write_run_marker(const std::string& run_folder, const RunMarker& marker) {
  nlohmann::ordered_json json = {{"format", format_name}, {"format_version", 1}};
  if (!marker.course.empty()) json["course"] = marker.course;
  if (!marker.begun_by.id.empty()) {
    json["begun_by_job"] = marker.begun_by.id;
    json["begun_after_restarts"] = marker.begun_by.num_restarts;
  }
  write_file_atomically(run_folder + file_name,
                        json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace switchyard
