#include "trainer/families/new_folder.hpp"

#include <fmt/core.h>

#include <filesystem>
#include <utility>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace fs = std::filesystem;

NewFolder::NewFolder(std::string path) : path_(std::move(path)) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  std::error_code error;
  if (fs::exists(fs::symlink_status(path_, error)) &&
      !(fs::is_directory(fs::symlink_status(path_, error)) && fs::is_empty(path_, error)))
    throw ConfigError(fmt::format("{}: is there already; choose another name", path_));
  temporary_ = path_ + ".tmp";
  if (fs::exists(fs::symlink_status(temporary_, error)))
    throw ConfigError(
        fmt::format("{}: is in the way; the same command, killed, may have left it: "
                    "remove it",
                    temporary_));
  fs::create_directories(temporary_, error);
  if (error) {
    const std::string folder = std::exchange(temporary_, "");
    throw IoError(fmt::format("{}: cannot be made: {}", folder, error.message()));
  }
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void NewFolder::publish() {
  sync_folder(temporary_);
  fs::rename(temporary_, path_);
  temporary_.clear();
  const fs::path parent = fs::path(path_).parent_path();
  sync_folder(parent.empty() ? "." : parent.string());
}

}  // namespace switchyard
