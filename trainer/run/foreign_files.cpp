#include "trainer/run/foreign_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/run/run_marker.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// All that a run writes under a fixed name.
constexpr std::array names_of_a_run = {
    "run.json",      "run.lock",    "config.yaml", "tokenizer.bin", "metrics.jsonl",
    "restarts.json", "exit.json",   "logs",        "checkpoints",   "captures",
    "watch",         "record.json", "traces",      "events",        "routing"};
constexpr std::int64_t max_bytes = 1 << 16;

bool is_there(const std::string& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

bool is_folder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

// The text of a regular file, no link, of moderate size; "?" if it is none.
std::string small_text(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(path, error))) return "?";
  try {
    return read_file(path, max_bytes);
  } catch (const IoError&) {
    return "?";
  }
}

bool has_keys(const std::string& text, const std::vector<std::string>& keys) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  return json.is_object() && std::all_of(keys.begin(), keys.end(), [&](const std::string& key) {
           return json.contains(key);
         });
}

// Empty while nobody holds the folder.
bool is_lock_of_a_run(const std::string& path) {
  const std::string text = small_text(path);
  return text.empty() || has_keys(text, {"host", "pid", "start", "since"});
}

bool has_checkpoint_of_a_run(const std::string& folder) {
  if (!is_folder(folder)) return false;
  for (const std::int64_t step : checkpoint_steps_in(folder)) {
    const std::string path = folder + "/" + step_folder_name(step);
    if (!is_folder(path)) continue;
    try {
      read_manifest(path);
      return true;
    } catch (const CheckpointError&) {
      // Damaged, or somebody else's.
    }
  }
  return false;
}

bool is_of_a_run(const std::string& folder) {
  if (read_run_marker(folder)) return true;
  return is_lock_of_a_run(folder + "/run.lock") &&
         (has_keys(small_text(folder + "/restarts.json"),
                   {"restarts", "starts_without_progress", "first_step", "newest_step"}) ||
          has_checkpoint_of_a_run(folder + "/checkpoints"));
}

}  // namespace

std::vector<std::string> foreign_files_in(const std::string& run_folder) {
  if (is_of_a_run(run_folder)) return {};
  std::vector<std::string> foreign;
  for (const std::string name : names_of_a_run) {
    const std::string path = run_folder + "/" + name;
    // A start that was killed at once leaves the lock alone.
    if (is_there(path) && !(name == "run.lock" && is_lock_of_a_run(path))) foreign.push_back(name);
  }
  return foreign;
}

void require_no_foreign_files(const std::string& run_folder) {
  const std::vector<std::string> foreign = foreign_files_in(run_folder);
  if (foreign.empty()) return;
  throw ConfigError(fmt::format(
      "run.output: {} holds {}, and no run.json says that a run of this program made it: a run "
      "would replace or remove what is there. Choose another run.output, or move or rename these "
      "first",
      run_folder, fmt::join(foreign, ", ")));
}

}  // namespace switchyard
