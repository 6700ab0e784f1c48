// The index of a Megatron dataset, NAME.idx. Little endian:
//
//   offset   type      field
//   0        9 bytes   "MMIDIDX\0\0"
//   9        u64       version, 1
//   17       u8        type of the tokens: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16 (6, 7: floats)
//   18       u64       S, number of sequences
//   26       u64       D, number of documents + 1
//   34       i32[S]    lengths of the sequences in tokens
//   34+4S    i64[S]    where they begin in the .bin, in bytes
//   34+12S   i64[D]    where documents begin, in sequences; first 0, last S
//
// Behind it may stand S bytes of modes; such a file is of several modalities and is refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/formats/mapped_file.hpp"

namespace switchyard::formats {

inline constexpr std::string_view megatron_magic{"MMIDIDX\0\0", 9};
inline constexpr std::int64_t megatron_header_bytes = 34;

enum class TokenCode : std::uint8_t { u8 = 1, i8 = 2, i16 = 3, i32 = 4, i64 = 5, u16 = 8 };
std::int64_t bytes_of(TokenCode code);

class MegatronIndex {
 public:
  // Checks all of it against the size of the .bin. DataError.
  MegatronIndex(const std::string& path, std::int64_t bin_bytes);

  struct Range {
    std::int64_t begin = 0, end = 0;
  };
  TokenCode code() const { return code_; }
  std::int64_t num_sequences() const { return num_sequences_; }
  std::int64_t num_documents() const { return num_offsets_ - 1; }
  Range sequences_of(std::int64_t document) const;
  Range bytes_of_sequence(std::int64_t sequence) const;  // in the .bin

 private:
  template <class Number>
  Number at(std::int64_t offset) const;
  [[noreturn]] void fail(const std::string& what) const;
  void read_header();
  void check_sequences(std::int64_t bin_bytes) const;
  void check_documents() const;

  std::string path_;
  MappedFile file_;
  TokenCode code_ = TokenCode::i32;
  std::int64_t num_sequences_ = 0;
  std::int64_t num_offsets_ = 1;  // of documents
};

}  // namespace switchyard::formats
