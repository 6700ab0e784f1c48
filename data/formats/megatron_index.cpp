#include "data/formats/megatron_index.hpp"

#include <fmt/core.h>

#include <cstring>

#include "tensor/error.hpp"

namespace switchyard::formats {

std::int64_t bytes_of(TokenCode code) {
  switch (code) {
    case TokenCode::u8:
    case TokenCode::i8:
      return 1;
    case TokenCode::i16:
    case TokenCode::u16:
      return 2;
    case TokenCode::i32:
      return 4;
    case TokenCode::i64:
      return 8;
  }
  return 0;
}

MegatronIndex::MegatronIndex(const std::string& path, std::int64_t bin_bytes)
    : path_(path), file_(path) {
  read_header();
  check_sequences(bin_bytes);
  check_documents();
}

void MegatronIndex::fail(const std::string& what) const {
  throw DataError(
      fmt::format("{}: {}; it is no index of a Megatron dataset, or a damaged one", path_, what));
}

// The caller has checked that the number lies inside.
template <class Number>
Number MegatronIndex::at(std::int64_t offset) const {
  Number number;
  std::memcpy(&number, file_.bytes().data() + offset, sizeof number);
  return number;
}

void MegatronIndex::read_header() {
  const auto size = static_cast<std::int64_t>(file_.bytes().size());
  if (size < megatron_header_bytes) fail(fmt::format("has {} bytes, its head alone {}", size, 34));
  if (std::memcmp(file_.bytes().data(), megatron_magic.data(), megatron_magic.size()) != 0)
    fail("does not begin with MMIDIDX");
  const auto version = at<std::uint64_t>(9);
  if (version != 1) fail(fmt::format("has version {}, this program reads version 1", version));
  const auto code = at<std::uint8_t>(17);
  if (code == 6 || code == 7) fail("its tokens are floating-point numbers");
  if (code == 0 || code > 8) fail(fmt::format("has the type code {} for its tokens", code));
  code_ = static_cast<TokenCode>(code);

  const auto sequences = at<std::uint64_t>(18), documents = at<std::uint64_t>(26);
  // Neither number can be larger than the file, so that nothing overflows below.
  const auto most = static_cast<std::uint64_t>(size);
  if (sequences > most || documents > most || documents < 1)
    fail(fmt::format("claims {} sequences and {} borders of documents in {} bytes", sequences,
                     documents, size));
  num_sequences_ = static_cast<std::int64_t>(sequences);
  num_offsets_ = static_cast<std::int64_t>(documents);
  const std::int64_t wanted = megatron_header_bytes + 12 * num_sequences_ + 8 * num_offsets_;
  if (size == wanted + num_sequences_ && num_sequences_ > 0)
    throw DataError(
        fmt::format("{}: has modes of sequences: it is a dataset of several modalities, "
                    "which this program cannot read",
                    path_));
  if (size != wanted)
    fail(fmt::format("has {} bytes, but {} sequences and {} borders of documents take {}", size,
                     sequences, documents, wanted));
}

MegatronIndex::Range MegatronIndex::bytes_of_sequence(std::int64_t sequence) const {
  const std::int64_t length = at<std::int32_t>(megatron_header_bytes + 4 * sequence);
  const auto begin = at<std::int64_t>(megatron_header_bytes + 4 * num_sequences_ + 8 * sequence);
  return {begin, begin + length * bytes_of(code_)};
}

MegatronIndex::Range MegatronIndex::sequences_of(std::int64_t document) const {
  const std::int64_t offsets = megatron_header_bytes + 12 * num_sequences_;
  return {at<std::int64_t>(offsets + 8 * document), at<std::int64_t>(offsets + 8 * document + 8)};
}

// Sequences lie one behind another and fill the .bin.
void MegatronIndex::check_sequences(std::int64_t bin_bytes) const {
  std::int64_t end = 0;
  for (std::int64_t i = 0; i < num_sequences_; ++i) {
    const auto length = at<std::int32_t>(megatron_header_bytes + 4 * i);
    const auto begin = at<std::int64_t>(megatron_header_bytes + 4 * num_sequences_ + 8 * i);
    if (length < 0) fail(fmt::format("sequence {} has {} tokens", i, length));
    if (begin != end)
      fail(fmt::format("sequence {} begins at byte {} of the .bin, the one before ends at {}", i,
                       begin, end));
    end += length * bytes_of(code_);
    if (end > bin_bytes)
      fail(fmt::format("sequence {} ends at byte {}, but the .bin has {}", i, end, bin_bytes));
  }
  if (end != bin_bytes)
    fail(fmt::format("its sequences have {} bytes, the .bin {}", end, bin_bytes));
}

void MegatronIndex::check_documents() const {
  const std::int64_t offsets = megatron_header_bytes + 12 * num_sequences_;
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < num_offsets_; ++i) {
    const auto offset = at<std::int64_t>(offsets + 8 * i);
    if ((i == 0 && offset != 0) || offset < last || offset > num_sequences_)
      fail(fmt::format("document {} begins at sequence {}, after {} of {}", i, offset, last,
                       num_sequences_));
    last = offset;
  }
  if (last != num_sequences_)
    fail(fmt::format("its documents have {} sequences, the index {}", last, num_sequences_));
}

}  // namespace switchyard::formats
