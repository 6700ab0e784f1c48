#include "trainer/run/run_folder.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/files/atomic_file.hpp"
#include "trainer/run/foreign_files.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// Who holds a folder. `start` is the process's start in clock ticks since boot: process numbers are
// used again, the pair is not.
struct Holder {
  std::string host;
  std::int64_t pid = 0;
  std::string start;
  std::string since;  // for people

  std::string to_string() const {
    return fmt::format("process {} on {}, since {}", pid, host, since);
  }
};

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Field 22 of /proc/PID/stat; the command's name before it may hold anything but ends at the last
// parenthesis. Empty if there is no such process.
std::string start_of_process(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  if (!std::getline(file, text)) return {};
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string field;
  for (int index = 3; index <= 22; ++index)
    if (!(fields >> field)) return {};
  return field;
}

bool is_alive(const Holder& holder) {
  const std::string start = start_of_process(holder.pid);
  return !start.empty() && start == holder.start;
}

// What a lock file says; pid 0 when it says nothing that can be read.
Holder parse_holder(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  Holder holder;
  if (!json.is_object()) return holder;
  holder.host = json.value("host", "");
  holder.pid = json.value("pid", std::int64_t{0});
  holder.start = json.value("start", "");
  holder.since = json.value("since", "");
  return holder;
}

std::string to_text(const Holder& holder) {
  const nlohmann::ordered_json json = {
      {"host", holder.host}, {"pid", holder.pid}, {"start", holder.start}, {"since", holder.since}};
  return json.dump() + "\n";
}

std::string read_all(int file) {
  std::array<char, 4096> buffer{};
  const ssize_t count = ::pread(file, buffer.data(), buffer.size(), 0);
  return count > 0 ? std::string(buffer.data(), static_cast<std::size_t>(count)) : std::string();
}

enum class LockResult { taken, held, unsupported };

LockResult try_lock(int file) {
  struct flock request {};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  if (::fcntl(file, F_OFD_SETLK, &request) == 0) return LockResult::taken;
  return errno == EAGAIN || errno == EACCES ? LockResult::held : LockResult::unsupported;
}

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
  try {
    lock();
    if (const std::optional<RunMarker> marker = read_run_marker(path_))
      marker_ = *marker;
    else
      write_run_marker(path_, marker_);
    for (const std::string& folder : {logs(), checkpoints()}) make_folder(folder);
  } catch (...) {
    if (lock_file_ >= 0) ::close(lock_file_);
    throw;
  }
}

RunFolder::~RunFolder() {
  // Emptied, not removed: another process may have the file open already and wait for its turn.
  if (::ftruncate(lock_file_, 0) == 0) ::fsync(lock_file_);
  ::close(lock_file_);
}

void RunFolder::lock() {
  const std::string path = path_ + "/run.lock";
  lock_file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_file_ < 0)
    throw IoError(fmt::format("run.output: {} cannot be written: {}", path, std::strerror(errno)));

  const LockResult result = try_lock(lock_file_);
  const Holder holder = parse_holder(read_all(lock_file_));
  const bool known = holder.pid != 0;
  if (result == LockResult::held)
    refuse(path_, known ? holder.to_string() : "which has not said its name yet", "");
  if (result == LockResult::unsupported && known) {
    if (holder.host != host_name())
      refuse(path_, holder.to_string(), fmt::format("; if that job is gone, remove {}", path));
    if (is_alive(holder)) refuse(path_, holder.to_string(), "");
  }
  if (known)
    note_ = fmt::format("{}: the job that held this folder ({}) has died; its lock is taken over",
                        path_, holder.to_string());

  const std::string text =
      to_text({host_name(), ::getpid(), start_of_process(::getpid()), utc_now()});
  const bool written =
      ::ftruncate(lock_file_, 0) == 0 &&
      ::pwrite(lock_file_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  if (!written)
    throw IoError(fmt::format("run.output: {} cannot be written: {}", path, std::strerror(errno)));
  ::fsync(lock_file_);
}

void RunFolder::mark(const RunMarker& marker) {
  write_run_marker(path_, marker);
  marker_ = marker;
}

void RunFolder::write_config(const std::string& yaml) const {
  write_file_atomically(path_ + "/config.yaml", yaml);
}

}  // namespace switchyard
