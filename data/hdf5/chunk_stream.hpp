// Fills a one-dimensional dataset of chunks with Fletcher32 from its first element to its last.
// Dataset::write() copies each byte twice, through HDF5's cache and its filter, and makes checksums
// on the way, one by one; here chunks go to the file as they are, and any thread can have made what
// their checksums are made of. What is written is the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "data/hdf5/fletcher32.hpp"
#include "data/hdf5/hdf5.hpp"

namespace switchyard::hdf5 {

// Of bytes that begin at byte `begin` of a dataset: of what they have of each chunk. Any thread.
std::vector<Fletcher32> chunk_checksums(std::int64_t begin, std::span<const std::byte> bytes,
                                        std::int64_t chunk_bytes);

class ChunkStream {
 public:
  ChunkStream() = default;  // of a dataset without elements
  // Of elements of 2 bytes and more. It keeps the dataset.
  explicit ChunkStream(Dataset dataset);

  // The next elements, with their chunk_checksums(). The bytes are changed meanwhile, and come
  // back.
  void write(std::span<std::byte> bytes, std::span<const Fletcher32> checksums);
  bool is_whole() const { return written_ == size_; }

 private:
  // bytes: a chunk, and behind it as many as its checksum has.
  void write_chunk(std::span<std::byte> bytes);

  Dataset dataset_;
  std::int64_t element_bytes_ = 1, chunk_bytes_ = 1;
  std::int64_t size_ = 0, written_ = 0;  // bytes
  std::vector<std::byte> begun_;         // a chunk that came in pieces
  Fletcher32 checksum_;                  // of the chunk so far
};

}  // namespace switchyard::hdf5
