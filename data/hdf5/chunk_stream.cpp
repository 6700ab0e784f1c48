#include "data/hdf5/chunk_stream.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace switchyard::hdf5 {

namespace {

using Stored = std::array<std::byte, sizeof(std::uint32_t)>;  // a checksum

// What `bytes`, behind `at` of them, have of the chunk in which they begin.
std::size_t rest_of_chunk(std::int64_t at, std::size_t bytes, std::int64_t chunk_bytes) {
  return std::min(bytes, static_cast<std::size_t>(chunk_bytes - at % chunk_bytes));
}

}  // namespace

std::vector<Fletcher32> chunk_checksums(std::int64_t begin, std::span<const std::byte> bytes,
                                        std::int64_t chunk_bytes) {
  std::vector<Fletcher32> checksums;
  while (!bytes.empty()) {
    const std::size_t piece = rest_of_chunk(begin, bytes.size(), chunk_bytes);
    checksums.emplace_back().add(bytes.first(piece));
    bytes = bytes.subspan(piece);
    begin += static_cast<std::int64_t>(piece);
  }
  return checksums;
}

ChunkStream::ChunkStream(Dataset dataset)
    : dataset_(std::move(dataset)),
      element_bytes_(size_of(dataset_.type())),
      size_(dataset_.shape().numel() * element_bytes_) {
  expect(dataset_.shape().num_dims() == 1 && element_bytes_ % 2 == 0,
         "a dataset of one dim, of elements of whole words");
  if (size_ > 0) chunk_bytes_ = dataset_.chunk_shape().numel() * element_bytes_;
}

void ChunkStream::write(std::span<std::byte> bytes, std::span<const Fletcher32> checksums) {
  const auto whole = static_cast<std::size_t>(chunk_bytes_);
  expect(std::ssize(bytes) <= size_ - written_, "bytes inside the dataset");
  for (const Fletcher32& checksum : checksums) {
    const std::size_t piece = rest_of_chunk(written_, bytes.size(), chunk_bytes_);
    checksum_.add(checksum);
    if (piece == whole && bytes.size() >= whole + sizeof(Stored)) {
      write_chunk(bytes.first(whole + sizeof(Stored)));
    } else {
      begun_.insert(begun_.end(), bytes.begin(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(piece));
      // A chunk is stored whole, with zeros behind the dataset's end.
      if (written_ + static_cast<std::int64_t>(piece) == size_) {
        const std::vector<std::byte> zeros(whole - begun_.size());
        checksum_.add(zeros);
        begun_.insert(begun_.end(), zeros.begin(), zeros.end());
      }
      if (begun_.size() == whole) {
        begun_.resize(whole + sizeof(Stored));
        write_chunk(begun_);
        begun_.clear();
      }
    }
    written_ += static_cast<std::int64_t>(piece);
    bytes = bytes.subspan(piece);
  }
  expect(bytes.empty(), "a checksum for what there is of each chunk");
}

void ChunkStream::write_chunk(std::span<std::byte> bytes) {
  const std::span<std::byte> behind = bytes.last(sizeof(Stored));
  Stored lent;
  std::ranges::copy(behind, lent.begin());
  std::ranges::copy(std::bit_cast<Stored>(checksum_.value()), behind.begin());
  dataset_.write_chunk({written_ / chunk_bytes_ * chunk_bytes_ / element_bytes_}, bytes);
  std::ranges::copy(lent, behind.begin());
  checksum_ = {};
}

}  // namespace switchyard::hdf5
