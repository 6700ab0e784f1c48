// The counters of dropout's random numbers, which every twin must form alike: one counter of four
// words, and so four numbers, for every four elements of every row.
//   word 0: step
//   word 1: low half of the sequence
//   word 2: position, the rest of the sequence above it
//   word 3: group of four elements, the copy above it
#pragma once

#include <cstdint>

namespace switchyard::kernels {

inline constexpr int dropout_group_size = 4;
inline constexpr int dropout_position_bits = 24;
inline constexpr int dropout_group_bits = 24;
inline constexpr std::int64_t dropout_sequence_limit = std::int64_t{1}
                                                       << (32 + 32 - dropout_position_bits);

}  // namespace switchyard::kernels
