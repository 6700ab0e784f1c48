// An open file of the system, by its descriptor: reading and writing at offsets without a library
// in between. Move-only; closes in the destructor. Errors are IoError with the name it was opened
// by.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace switchyard {

class OpenFile {
 public:
  enum class Access : std::uint8_t { read, read_and_write };

  OpenFile() = default;
  // Opens an existing file.
  explicit OpenFile(std::string path, Access access = Access::read_and_write);
  ~OpenFile();
  OpenFile(OpenFile&& other) noexcept
      : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  OpenFile& operator=(OpenFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

  int descriptor() const { return descriptor_; }
  std::int64_t size() const;
  // Takes away the name; the file lives until it is closed.
  void unlink();
  // 0, or the system's error: for a full disk ENOSPC, EDQUOT or EFBIG.
  int write_at(std::int64_t offset, const void* data, std::int64_t bytes) const;
  // IoError also where the file ends before.
  void read_at(std::int64_t offset, void* data, std::int64_t bytes) const;
  // Takes the blocks of a range. 0, or the error of a full disk or a limit; where the file system
  // cannot reserve, nothing happens.
  int reserve(std::int64_t offset, std::int64_t bytes) const;
  // Lets the system begin to write a range of many pages to the disk, so that syncing the file has
  // little left to wait for. Does not wait, and promises nothing.
  void begin_write_back(std::int64_t offset, std::int64_t bytes) const;
  // Gives the blocks of a range back where the file system can; its bytes are lost.
  void discard(std::int64_t offset, std::int64_t bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
};

// EFBIG if a file of `bytes` bytes is beyond this process's limit (ulimit -f), else 0. Asked before
// a library grows a file: the system would answer with a signal.
int size_error(std::int64_t bytes);

}  // namespace switchyard
