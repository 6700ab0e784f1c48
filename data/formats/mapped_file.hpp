// A file of others as read-only bytes in memory, its pages fetched as they are touched.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace switchyard::formats {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // IoError
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  std::span<const std::byte> bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard::formats
