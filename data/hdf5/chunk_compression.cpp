#include "data/hdf5/chunk_compression.hpp"

#include <zlib.h>

#include "tensor/error.hpp"

namespace switchyard {

std::vector<std::byte> shuffle_and_deflate(std::span<const std::byte> bytes,
                                           std::size_t element_size, int level) {
  const std::size_t num_elements = bytes.size() / element_size;
  expect(num_elements * element_size == bytes.size(), "whole elements in a chunk");
  std::vector<std::byte> shuffled(bytes.size());
  for (std::size_t b = 0; b < element_size; ++b)
    for (std::size_t i = 0; i < num_elements; ++i)
      shuffled[b * num_elements + i] = bytes[i * element_size + b];

  uLongf size = compressBound(static_cast<uLong>(shuffled.size()));
  std::vector<std::byte> deflated(size);
  const int result = compress2(reinterpret_cast<Bytef*>(deflated.data()), &size,
                               reinterpret_cast<const Bytef*>(shuffled.data()),
                               static_cast<uLong>(shuffled.size()), level);
  expect(result == Z_OK, "zlib to compress into a buffer of compressBound() bytes");
  deflated.resize(size);
  return deflated;
}

}  // namespace switchyard
