// The bytes of an input, undone of gzip or Zstandard by its name (.gz, .zst). Private to
// data/prepare.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace switchyard {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  struct Read {
    std::size_t count = 0;    // 0: the end
    bool is_damaged = false;  // the compressed data is broken or cut short
  };
  // IoError where the file cannot be read.
  virtual Read read(std::span<char> bytes) = 0;
  virtual std::int64_t bytes_read() const = 0;  // on the disk, so far
};

// IoError when it cannot be opened.
std::unique_ptr<ByteSource> open_bytes(const std::string& path);

// The name without .gz or .zst, in any case.
std::string_view without_compression(std::string_view path);

}  // namespace switchyard
