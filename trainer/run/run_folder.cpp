#include "trainer/run/run_folder.hpp"

#include <fmt/core.h>

#include <filesystem>

#include "data/files/atomic_file.hpp"
#include "trainer/run/foreign_files.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

void make_folder(const std::string& path) {
  try {
    fs::create_directories(path);
  } catch (const fs::filesystem_error& error) {
    throw IoError(fmt::format("run.output: {} cannot be created: {}", error.path1().string(),
                              error.code().message()));
  }
}

[[noreturn]] void refuse(const std::string& path, const std::string& who, const std::string& hint) {
  throw ConfigError(fmt::format(
      "run.output: {} is in use by another job ({}). Wait for it or choose another folder{}", path,
      who, hint));
}

}  // namespace

RunFolder::RunFolder(std::string path) : path_(std::move(path)) {
  require_no_foreign_files(path_);
  make_folder(path_);
  lock();
  if (const std::optional<RunMarker> marker = read_run_marker(path_))
    marker_ = *marker;
  else
    write_run_marker(path_, marker_);
  for (const std::string& folder : {logs(), checkpoints()}) make_folder(folder);
}

void RunFolder::lock() {
  const std::string path = path_ + "/run.lock";
  try {
    lock_.emplace(path);
    const auto holder = lock_->try_take();
    if (holder)
      refuse(path_, holder->name.empty() ? "which has not said its name yet" : holder->name,
             holder->is_of_unknown_host ? fmt::format("; if that job is gone, remove {}", path)
                                        : std::string());
  } catch (const IoError& error) {
    throw IoError(fmt::format("run.output: {}", error.what()));
  }
  if (!lock_->dead_holder().empty())
    note_ = fmt::format("{}: the job that held this folder ({}) has died; its lock is taken over",
                        path_, lock_->dead_holder());
}

void RunFolder::mark(const RunMarker& marker) {
  write_run_marker(path_, marker);
  marker_ = marker;
}

void RunFolder::write_config(const std::string& yaml) const {
  write_file_atomically(path_ + "/config.yaml", yaml);
}

}  // namespace switchyard
