#include "data/files/open_file.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t piece_bytes = std::int64_t{8} << 20;  // of one call to the system

std::size_t piece(std::int64_t bytes) {
  return static_cast<std::size_t>(std::min(bytes, piece_bytes));
}

}  // namespace

OpenFile::OpenFile(std::string path, Access access) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), (access == Access::read ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  if (descriptor_ < 0)
    throw IoError(fmt::format("{}: cannot be opened: {}", path_, std::strerror(errno)));
}

OpenFile::~OpenFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::int64_t OpenFile::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0)
    throw IoError(fmt::format("{}: its size cannot be read: {}", path_, std::strerror(errno)));
  return status.st_size;
}

void OpenFile::unlink() {
  if (::unlink(path_.c_str()) != 0)
    throw IoError(fmt::format("{}: cannot be removed: {}", path_, std::strerror(errno)));
}

int OpenFile::write_at(std::int64_t offset, const void* data, std::int64_t bytes) const {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::pwrite(descriptor_, from, piece(bytes), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    if (written == 0) return ENOSPC;
    from += written;
    offset += written;
    bytes -= written;
  }
  return 0;
}

void OpenFile::read_at(std::int64_t offset, void* data, std::int64_t bytes) const {
  char* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, to, piece(bytes), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      throw IoError(fmt::format("{}: {} bytes at {} cannot be read: {}", path_, bytes, offset,
                                got < 0 ? std::strerror(errno) : "the file ends before"));
    to += got;
    offset += got;
    bytes -= got;
  }
}

int OpenFile::reserve(std::int64_t offset, std::int64_t bytes) const {
  if (bytes == 0) return 0;
  if (const int error = size_error(offset + bytes)) return error;
  int error = 0;
  do {
    error = ::fallocate(descriptor_, 0, offset, bytes) == 0 ? 0 : errno;
  } while (error == EINTR);
  return error == ENOSPC || error == EDQUOT || error == EFBIG ? error : 0;
}

void OpenFile::begin_write_back(std::int64_t offset, std::int64_t bytes) const {
  constexpr std::int64_t worth_beginning = 256 << 10;
  if (bytes >= worth_beginning)
    static_cast<void>(::sync_file_range(descriptor_, offset, bytes, SYNC_FILE_RANGE_WRITE));
}

void OpenFile::discard(std::int64_t offset, std::int64_t bytes) const {
  if (bytes > 0)
    static_cast<void>(
        ::fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes));
}

int size_error(std::int64_t bytes) {
  rlimit limit{};
  const bool known = ::getrlimit(RLIMIT_FSIZE, &limit) == 0;
  return known && limit.rlim_cur < static_cast<rlim_t>(bytes) ? EFBIG : 0;
}

}  // namespace switchyard
