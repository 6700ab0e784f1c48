#include "data/files/spool.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

// O_TMPFILE where the file system knows it, else a file that loses its name at once.
int open_unnamed(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
    return descriptor;
  std::string name = folder + "/spool-XXXXXX";
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

}  // namespace

Spool::Spool(std::string folder) : folder_(std::move(folder)), descriptor_(open_unnamed(folder_)) {
  if (descriptor_ < 0)
    throw IoError(
        fmt::format("{}: cannot write into this folder: {}", folder_, std::strerror(errno)));
}

Spool::~Spool() {
  ::close(descriptor_);
}

std::int64_t Spool::size() const {
  return flushed_ + static_cast<std::int64_t>(pending_.size());
}

void Spool::append(std::span<const std::byte> bytes) {
  pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  if (pending_.size() >= buffer_bytes) flush();
}

void Spool::flush() {
  std::span<const std::byte> rest(pending_);
  while (!rest.empty()) {
    const ssize_t count = ::pwrite(descriptor_, rest.data(), rest.size(), flushed_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      throw IoError(
          fmt::format("{}: cannot write the collected tokens: {}; make room or write "
                      "somewhere else",
                      folder_, std::strerror(errno)));
    flushed_ += count;
    rest = rest.subspan(static_cast<std::size_t>(count));
  }
  pending_.clear();
}

void Spool::read(std::int64_t offset, std::span<std::byte> bytes) {
  flush();
  while (!bytes.empty()) {
    const ssize_t count = ::pread(descriptor_, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0)
      throw IoError(fmt::format("{}: cannot read the collected tokens back: {}", folder_,
                                count < 0 ? std::strerror(errno) : "the file is too short"));
    offset += count;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void Spool::truncate(std::int64_t size) {
  expect(size >= 0 && size <= this->size(), "a size that is no larger than the spool's");
  flush();
  if (::ftruncate(descriptor_, size) != 0)
    throw IoError(
        fmt::format("{}: cannot shorten the collected tokens: {}", folder_, std::strerror(errno)));
  flushed_ = size;
}

}  // namespace switchyard
