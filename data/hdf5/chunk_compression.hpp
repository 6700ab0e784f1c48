// Compresses a chunk of a dataset the way HDF5's shuffle and deflate filters do, so that the result
// can be handed to hdf5::Dataset::write_chunk(). Calls no HDF5: any thread may use it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace switchyard {

// Shuffle: byte b of every element, for b = 0, 1, ..., then zlib's deflate (a stream with a header
// and the Adler-32 of the bytes, which a reader checks). level: 1 ... 9.
std::vector<std::byte> shuffle_and_deflate(std::span<const std::byte> bytes,
                                           std::size_t element_size, int level);

}  // namespace switchyard
