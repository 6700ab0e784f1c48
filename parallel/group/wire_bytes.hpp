// Bytes that one rank sends to others, for an operand of `bytes` in a group of `size` ranks. The
// groups that exchange and the group that only plans count by the same formulas
// (docs/parallelism.md).
#pragma once

#include <bit>
#include <cstdint>
#include <numeric>
#include <span>

#include "parallel/group/group.hpp"

namespace switchyard::wire {

inline double all_gather(std::int64_t bytes, int size) {
  return static_cast<double>(bytes) * (size - 1) / size;
}
inline double reduce_scatter(std::int64_t bytes, int size) {
  return all_gather(bytes, size);
}
// Reduce-scatter, then all-gather.
inline double all_reduce(std::int64_t bytes, int size) {
  return 2 * all_gather(bytes, size);
}
// All ranks but the root receive the operand once; who forwards it is up to MPI: the mean.
inline double broadcast(std::int64_t bytes, int size) {
  return all_gather(bytes, size);
}

inline double all_to_all_v(const TensorView& send, const RankRows& to, int rank) {
  const std::int64_t rows = std::accumulate(to.count.begin(), to.count.end(), std::int64_t{0}) -
                            to.rows_of(static_cast<std::size_t>(rank));
  return rows == 0 ? 0.0 : static_cast<double>(rows * send.cols() * size_of(send.dtype));
}

// Small values that every rank sends to all others, as MPI libraries gather them: in each round a
// rank sends on all that it has, so the rounds double what is known (Bruck et al. 1997).
inline Work gather_values(std::int64_t bytes, int size) {
  return {.control_bytes = static_cast<double>(bytes) * (size - 1),
          .control_messages =
              static_cast<double>(std::bit_width(static_cast<std::uint32_t>(size - 1)))};
}

// Whole numbers may be added up in any order: reduced by halves, then gathered (Rabenseifner 2004).
inline Work reduce_counts(std::int64_t bytes, int size) {
  return {.control_bytes = all_reduce(bytes, size),
          .control_messages = 2 * gather_values(bytes, size).control_messages};
}

// Counts that each rank tells each other: those in the rows of an all-to-all.
inline Work told_counts(double bytes, int size) {
  return {.control_bytes = bytes, .control_messages = static_cast<double>(size - 1)};
}

// Adds to the current part of the device's profile; `control` where exchanges are control.
inline void record(Device& device, double wire_bytes, const Work& control = {}) {
  Profile& profile = device.profile();
  profile.record({.flops = 0, .bytes = 0, .wire_bytes = wire_bytes});
  if (profile.in_control()) profile.record(control);
}

}  // namespace switchyard::wire
