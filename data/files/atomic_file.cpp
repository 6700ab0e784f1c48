#include "data/files/atomic_file.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view temporary_mark = ".tmp-";

[[noreturn]] void fail(const std::string& path, std::string_view verb, int reason) {
  throw IoError(fmt::format("{}: cannot {}: {}", path, verb, std::strerror(reason)));
}

[[noreturn]] void refuse_existing(const std::string& path) {
  throw IoError(fmt::format("{}: exists already; remove it or choose another name", path));
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0)
      : value_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (value_ < 0) fail(path, "open", errno);
  }
  ~Descriptor() { ::close(value_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "host";
  return name.data();
}

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

void write_all(int descriptor, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = ::write(descriptor, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(path, "write", errno);
    content.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_path(const std::string& path, int flags) {
  const Descriptor descriptor(path, flags);
  // Some file systems (and pipes) have nothing to sync and say EINVAL.
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL) fail(path, "sync to the disk", errno);
}

// Whether `name` is a temporary of a process of this host that no longer lives.
bool is_stale(std::string_view name, std::string_view prefix) {
  const std::size_t mark = name.rfind(temporary_mark);
  if (!name.starts_with(prefix) || mark == std::string_view::npos) return false;
  const std::string_view owner = name.substr(mark + temporary_mark.size());
  const std::size_t dash = owner.rfind('-');
  if (dash == std::string_view::npos || owner.substr(0, dash) != host_name()) return false;
  const std::string_view digits = owner.substr(dash + 1);
  pid_t process = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), process);
  if (error != std::errc() || end != digits.data() + digits.size() || process <= 0) return false;
  return ::kill(process, 0) != 0 && errno == ESRCH;
}

}  // namespace

OutputFile::OutputFile(std::string path, Existing existing)
    : path_(std::move(path)),
      temporary_path_(fmt::format("{}{}{}-{}", path_, temporary_mark, host_name(), ::getpid())),
      existing_(existing) {
  if (existing_ == Existing::refuse && ::access(path_.c_str(), F_OK) == 0) refuse_existing(path_);
  // A folder cannot be replaced, and a device must not be.
  struct stat status {};
  if (::stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    throw IoError(
        fmt::format("{}: is not a file that could be replaced; choose another name", path_));
  remove_stale_temporaries(folder_of(path_), fs::path(path_).filename().string());
}

OutputFile::~OutputFile() {
  if (!committed_) ::unlink(temporary_path_.c_str());
}

void OutputFile::commit() {
  expect(!committed_, "an output file to be committed once only");
  sync_file(temporary_path_);
  const unsigned flags = existing_ == Existing::refuse ? RENAME_NOREPLACE : 0;
  int status = ::renameat2(AT_FDCWD, temporary_path_.c_str(), AT_FDCWD, path_.c_str(), flags);
  // Network file systems may not know the flag; the name was checked at the start.
  if (status != 0 && errno == EINVAL) status = ::rename(temporary_path_.c_str(), path_.c_str());
  if (status != 0 && errno == EEXIST) refuse_existing(path_);  // somebody was quicker
  if (status != 0) fail(path_, "give the finished file its name", errno);
  committed_ = true;
  sync_folder(folder_of(path_));
}

void write_file_atomically(const std::string& path, std::string_view content) {
  OutputFile output(path);
  {
    const Descriptor file(output.temporary_path(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    write_all(file.get(), content, path);
  }
  output.commit();
}

std::string read_file(const std::string& path, std::int64_t max_bytes) {
  const Descriptor file(path, O_RDONLY);
  std::string content;
  std::array<char, 1 << 16> buffer;
  while (true) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path, "read", errno);
    if (count == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(count));
    if (static_cast<std::int64_t>(content.size()) > max_bytes)
      throw IoError(fmt::format("{}: is larger than the {} bytes expected", path, max_bytes));
  }
}

void sync_file(const std::string& path) {
  sync_path(path, O_RDONLY);
}

void sync_folder(const std::string& path) {
  sync_path(path, O_RDONLY | O_DIRECTORY);
}

int remove_stale_temporaries(const std::string& folder, std::string_view prefix) noexcept {
  int num_removed = 0;
  try {
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_regular_file(ignored) && is_stale(entry->path().filename().string(), prefix) &&
          fs::remove(entry->path(), ignored))
        ++num_removed;
    }
  } catch (const std::exception&) {
    // A leftover stays where it is.
  }
  return num_removed;
}

void require_free_space(const std::string& folder, std::int64_t bytes, std::string_view purpose) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) fail(folder, "ask for the free space", errno);
  const auto free =
      static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
  if (free < bytes)
    throw IoError(
        fmt::format("{}: {} needs {} MiB, the disk has {} MiB free; make room or write "
                    "somewhere else",
                    folder, purpose, (bytes >> 20) + 1, free >> 20));
}

}  // namespace switchyard
