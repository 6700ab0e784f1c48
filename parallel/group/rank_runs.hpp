// Runs of rows (RankRows) as bytes of a tensor: what the groups that move bytes share. Private to
// parallel/.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "parallel/group/group.hpp"
#include "tensor/error.hpp"

namespace switchyard {

// Of both sides of an all-to-all on rank `rank` of `num_ranks`. InternalError unless each rank has
// runs inside the tensors, of one type and length, and `rank` receives from itself as many rows as
// it sends.
void expect_runs_fit(const TensorView& send, const RankRows& to, const TensorView& recv,
                     const RankRows& from, int rank, int num_ranks);
std::int64_t rows_in(const RankRows& rows);

// take(offset, bytes) of each run that a rank has, but empty ones, from the tensor's first byte.
template <class Take>
void for_each_run(const TensorView& view, const RankRows& rows, int rank, Take&& take) {
  const std::int64_t row_bytes = view.cols() * size_of(view.dtype);
  const auto p = static_cast<std::size_t>(rank);
  for (std::size_t i = rows.begin_of(p); i < rows.end_of(p); ++i)
    if (rows.count[i] > 0) take(rows.first[i] * row_bytes, rows.count[i] * row_bytes);
}

// copy(to, from, bytes), offsets both, of each run that a rank sends to itself.
template <class Copy>
void for_each_own_run(const TensorView& send, const RankRows& to, const TensorView& recv,
                      const RankRows& from, int rank, Copy&& copy) {
  std::vector<std::pair<std::int64_t, std::int64_t>> taken;
  for_each_run(recv, from, rank,
               [&](std::int64_t offset, std::int64_t bytes) { taken.emplace_back(offset, bytes); });
  std::size_t next = 0;
  for_each_run(send, to, rank, [&](std::int64_t offset, std::int64_t bytes) {
    expect(next < taken.size() && taken[next].second == bytes,
           "the runs that this rank sends to itself as it receives them");
    copy(taken[next++].first, offset, bytes);
  });
  expect(next == taken.size(), "as many rows from this rank to itself as it receives from itself");
}

}  // namespace switchyard
