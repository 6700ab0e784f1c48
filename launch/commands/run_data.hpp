// What the token file that a configuration names (data.path) tells a command before it does any
// work.
#pragma once

#include <cstdint>

#include "launch/config/config_file.hpp"

namespace switchyard {

// The number of tokens that the file's tokenizer knows. The file's own error (IoError, DataError),
// with the place that named the file, and how to make one if there is none.
std::int64_t vocab_size_of_data(const LoadedConfig& loaded);

}  // namespace switchyard
