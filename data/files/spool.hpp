// A growing run of bytes in an unnamed file: what is too much for memory and belongs to nobody
// else. The file has no name, so nothing is left behind however the process ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

class Spool {
 public:
  explicit Spool(std::string folder);  // on the file system of `folder`; IoError
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  std::int64_t size() const;  // bytes
  void append(std::span<const std::byte> bytes);
  void read(std::int64_t offset, std::span<std::byte> bytes);
  void truncate(std::int64_t size);

 private:
  void flush();

  std::string folder_;
  int descriptor_;
  std::int64_t flushed_ = 0;        // bytes in the file
  std::vector<std::byte> pending_;  // the bytes behind them
};

}  // namespace switchyard
