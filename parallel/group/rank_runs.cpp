#include "parallel/group/rank_runs.hpp"

#include <algorithm>
#include <numeric>

namespace switchyard {

namespace {

void expect_rows_inside(const TensorView& view, const RankRows& rows, std::size_t num_ranks) {
  expect(rows.num_ranks() == num_ranks && rows.first.size() == rows.count.size() &&
             rows.end_of(num_ranks - 1) == rows.count.size() && std::ranges::is_sorted(rows.ends),
         "row counts for each rank");
  for (std::size_t i = 0; i < rows.count.size(); ++i)
    expect(rows.count[i] >= 0 && rows.first[i] >= 0 && rows.first[i] + rows.count[i] <= view.rows(),
           "rows inside the tensors of an exchange");
}

}  // namespace

void expect_runs_fit(const TensorView& send, const RankRows& to, const TensorView& recv,
                     const RankRows& from, int rank, int num_ranks) {
  expect_rows_inside(send, to, static_cast<std::size_t>(num_ranks));
  expect_rows_inside(recv, from, static_cast<std::size_t>(num_ranks));
  const auto own = static_cast<std::size_t>(rank);
  expect(to.rows_of(own) == from.rows_of(own),
         "as many rows from this rank to itself as it receives from itself");
  expect(send.empty() || recv.empty() || (send.cols() == recv.cols() && send.dtype == recv.dtype),
         "rows of one type and length");
}

std::int64_t rows_in(const RankRows& rows) {
  return std::accumulate(rows.count.begin(), rows.count.end(), std::int64_t{0});
}

}  // namespace switchyard
