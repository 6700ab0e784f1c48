#include "data/files/file_lock.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

// Who holds a file. `start` is the process's start in clock ticks since boot: process numbers are
// used again, the pair is not.
struct Process {
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

bool is_alive(const Process& holder) {
  const std::string start = start_of_process(holder.pid);
  return !start.empty() && start == holder.start;
}

// What a lock file says; pid 0 when it says nothing that can be read.
Process parse_process(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  Process holder;
  if (!json.is_object()) return holder;
  holder.host = json.value("host", "");
  holder.pid = json.value("pid", std::int64_t{0});
  holder.start = json.value("start", "");
  holder.since = json.value("since", "");
  return holder;
}

std::string to_text(const Process& holder) {
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

std::string now() {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

}  // namespace

FileLock::FileLock(std::string path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file_ < 0)
    throw IoError(fmt::format("{} cannot be written: {}", path_, std::strerror(errno)));
}

FileLock::~FileLock() {
  if (file_ < 0) return;
  // Emptied, not removed: another process may have the file open already and wait for its turn.
  if (is_taken_ && ::ftruncate(file_, 0) == 0) ::fsync(file_);
  ::close(file_);
}

std::optional<FileLock::Holder> FileLock::try_take() {
  const LockResult result = try_lock(file_);
  const Process process = parse_process(read_all(file_));
  const bool is_known = process.pid != 0;
  if (result == LockResult::held)
    return Holder{is_known ? process.to_string() : std::string(), false};
  if (result == LockResult::unsupported && is_known) {
    if (process.host != host_name()) return Holder{process.to_string(), true};
    if (is_alive(process)) return Holder{process.to_string(), false};
  }
  note_ = is_known ? process.to_string() : std::string();
  sign();
  is_taken_ = true;
  return std::nullopt;
}

void FileLock::sign() {
  const std::string text = to_text({host_name(), ::getpid(), start_of_process(::getpid()), now()});
  const bool is_written =
      ::ftruncate(file_, 0) == 0 &&
      ::pwrite(file_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  if (!is_written)
    throw IoError(fmt::format("{} cannot be written: {}", path_, std::strerror(errno)));
  ::fsync(file_);
}

bool FileLock::is_held(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return false;
  struct flock request {};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  bool held = false;
  if (::fcntl(file, F_OFD_GETLK, &request) == 0) {
    held = request.l_type != F_UNLCK;
  } else {
    const Process process = parse_process(read_all(file));
    held = process.pid != 0 && (process.host != host_name() || is_alive(process));
  }
  ::close(file);
  return held;
}

}  // namespace switchyard
