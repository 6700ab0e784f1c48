// What a trace of routing is on the disk (docs/traces.md): a folder RUN/routing/steps-A-B for steps
// that follow each other, with a file a rank and trace.h5, which shows these as whole tensors by
// token identity. Legend: L layers with experts, S sequences of a step, n positions, k choices.
//   layers i64 [L], steps i64         and attributes num_experts, top_k, num_ranks
//   step-N/sequence_ids i64 [S]       ascending
//   step-N/experts      i32 [L, S, n, k]   -1: dropped
//   step-N/weights      f32 [L, S, n, k]   0 where dropped
//   step-N/considered   i32 [L, S, n, k]   before any was dropped; only where some may be
#pragma once

#include <cstdint>
#include <string>

namespace switchyard::trace_format {

inline constexpr const char* whole_file = "trace.h5";
inline constexpr const char* experts = "experts";
inline constexpr const char* weights = "weights";
inline constexpr const char* considered = "considered";

std::string rank_file(int rank);
std::string folder_of(std::int64_t first_step, std::int64_t last_step);
std::string dataset(std::int64_t step, const std::string& name);
// The first step of a folder's name; 0 if it is none of a trace.
std::int64_t first_step_of(const std::string& folder_name);

}  // namespace switchyard::trace_format
