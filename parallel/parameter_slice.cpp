#include "parallel/parameter_slice.hpp"

#include <algorithm>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

Slice::Slice(int dim, std::vector<IndexRange> runs) : dim_(dim) {
  expect(dim >= 0, "a dim to cut");
  for (const IndexRange& run : runs) {
    expect(0 <= run.begin && run.begin <= run.end, "runs of indices");
    if (run.size() == 0) continue;
    if (!runs_.empty() && runs_.back().end == run.begin)
      runs_.back().end = run.end;
    else
      runs_.push_back(run);
  }
  runs = runs_;
  std::ranges::sort(runs, {}, &IndexRange::begin);
  for (std::size_t i = 1; i < runs.size(); ++i)
    expect(runs[i - 1].end <= runs[i].begin, "runs without overlap");
}

Slice Slice::of(int dim, std::span<const std::int64_t> indices) {
  std::vector<IndexRange> runs;
  for (const std::int64_t index : indices) runs.push_back({index, index + 1});
  return {dim, std::move(runs)};
}

std::int64_t Slice::num_held() const {
  std::int64_t sum = 0;
  for (const IndexRange& run : runs_) sum += run.size();
  return sum;
}

std::int64_t Slice::index_of(std::int64_t held) const {
  for (const IndexRange& run : runs_) {
    if (held < run.size()) return run.begin + held;
    held -= run.size();
  }
  expect(false, "an index that the rank holds");
  return -1;
}

void Slice::expect_inside(const Shape& global_shape) const {
  expect(dim_ < global_shape.num_dims(), "a dim of the global tensor");
  for (const IndexRange& run : runs_)
    expect(run.end <= global_shape[dim_], "runs inside the global tensor");
}

Shape Slice::local_shape(const Shape& global_shape) const {
  return global_shape.with_dim(dim_, num_held());
}

namespace {

// The flattened tensors as rows: a row is all of the cut dim and of those inside it.
class Rows {
 public:
  Rows(const Shape& global_shape, const Slice& slice, std::int64_t origin)
      : slice_(slice), origin_(origin) {
    for (int dim = slice.dim() + 1; dim < global_shape.num_dims(); ++dim)
      inner_ *= global_shape[dim];
    global_row_ = global_shape[slice.dim()] * inner_;
    local_row_ = slice.num_held() * inner_;
  }

  std::int64_t local_row() const { return local_row_; }
  bool holds_all() const { return local_row_ == global_row_ && slice_.runs().size() <= 1; }

  // Columns [from, to) of `count` rows of the local tensor, run by run.
  void append(std::int64_t row, std::int64_t count, std::int64_t from, std::int64_t to,
              std::vector<SlicePiece>& pieces) const {
    std::int64_t begin = 0;  // of the run, in a local row
    for (const IndexRange& run : slice_.runs()) {
      const std::int64_t end = begin + run.size() * inner_;
      const std::int64_t low = std::max(begin, from);
      const std::int64_t high = std::min(end, to);
      if (low < high)
        pieces.push_back({.global_begin = row * global_row_ + run.begin * inner_ + low - begin,
                          .local_begin = row * local_row_ + low - origin_,
                          .numel = high - low,
                          .count = count,
                          .global_stride = count > 1 ? global_row_ : 0,
                          .local_stride = count > 1 ? local_row_ : 0});
      begin = end;
    }
  }

 private:
  const Slice& slice_;
  std::int64_t origin_;
  std::int64_t inner_ = 1;  // elements of one index of the cut dim
  std::int64_t global_row_ = 0;
  std::int64_t local_row_ = 0;
};

}  // namespace

std::int64_t global_index_of(const Shape& global_shape, const Slice& slice, std::int64_t local) {
  std::int64_t inner = 1;
  for (int dim = slice.dim() + 1; dim < global_shape.num_dims(); ++dim) inner *= global_shape[dim];
  const std::int64_t num_held = slice.num_held();
  const std::int64_t row = local / (num_held * inner);
  const std::int64_t index = slice.index_of(local / inner % num_held);
  return (row * global_shape[slice.dim()] + index) * inner + local % inner;
}

std::vector<SlicePiece> pieces_of(const Shape& global_shape, const Slice& slice, std::int64_t begin,
                                  std::int64_t numel) {
  slice.expect_inside(global_shape);
  const std::int64_t end = begin + numel;
  expect(begin >= 0 && numel >= 0 && end <= slice.local_shape(global_shape).numel(),
         "a range inside the local tensor");
  std::vector<SlicePiece> pieces;
  if (numel == 0) return pieces;
  const Rows rows(global_shape, slice, begin);
  if (rows.holds_all()) return {{.global_begin = begin, .local_begin = 0, .numel = numel}};

  const std::int64_t length = rows.local_row();
  std::int64_t row = begin / length;
  if (begin % length != 0) {  // the rest of a row
    rows.append(row, 1, begin % length, std::min(length, end - row * length), pieces);
    ++row;
  }
  if (const std::int64_t num_whole = end / length - row; num_whole > 0) {
    rows.append(row, num_whole, 0, length, pieces);
    row += num_whole;
  }
  if (row * length < end) rows.append(row, 1, 0, end - row * length, pieces);
  std::ranges::sort(pieces, {}, &SlicePiece::global_begin);
  return pieces;
}

}  // namespace switchyard
