// Why a file cannot be opened as an HDF5 file, in words that name the remedy: HDF5 itself says the
// same of a text, an empty file, a damaged one and one that is in use. Private to data/*.cpp.
#pragma once

#include <string>
#include <string_view>

namespace switchyard::hdf5 {

inline constexpr std::string_view signature = "\x89HDF\r\n\x1a\n";

// The first bytes of a file; empty when it cannot be read.
std::string beginning_of(const std::string& path);

// `reasons`: what HDF5 gave. IoError when another program has locked the file or the file system
// knows no locks, else DataError.
[[noreturn]] void fail_to_open(const std::string& path, std::string_view reasons);

}  // namespace switchyard::hdf5
