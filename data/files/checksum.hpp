// XXH3 (64 bits) checksums of bytes and files: against accidents, not against attackers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace switchyard {

std::uint64_t checksum_of(std::span<const std::byte> bytes);
std::uint64_t checksum_of_file(const std::string& path);  // IoError when it cannot be read
std::string checksum_text(std::uint64_t checksum);        // 16 hexadecimal digits

// The checksum of bytes that come in pieces.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(Checksum&&) noexcept;
  Checksum& operator=(Checksum&&) noexcept;
  void add(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
