#include "trainer/whole_sequences.hpp"

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t numbers_of_rank = 4;  // of its at most two segments

hdf5::Box part_of(const Shape& shape, int dim, std::int64_t first_sequence, std::int64_t sequences,
                  std::int64_t first_position, std::int64_t positions) {
  hdf5::Box box = hdf5::Box::whole(shape);
  const auto sequence = static_cast<std::size_t>(dim);
  box.begin[sequence] = first_sequence;
  box.count[sequence] = sequences;
  box.begin[sequence + 1] = first_position;
  box.count[sequence + 1] = positions;
  return box;
}

}  // namespace

WholeSequences::WholeSequences(std::span<const std::int64_t> ids, const BatchLayout& layout,
                               Group& world)
    : num_local_(std::ssize(ids)) {
  std::vector<std::int64_t> segments;
  for (const PositionRange& segment : layout.local_segments())
    segments.insert(segments.end(), {segment.begin, segment.count});
  expect(std::ssize(segments) <= numbers_of_rank, "a rank with at most two segments");
  segments.resize(numbers_of_rank, 0);
  const auto num_ranks = static_cast<std::size_t>(world.size());
  all_ids_.resize(ids.size() * num_ranks);
  segments_.resize(segments.size() * num_ranks);
  world.all_gather_values(ids, all_ids_);
  world.all_gather_values(segments, segments_);
  ids_ = all_ids_;
  std::sort(ids_.begin(), ids_.end());
  ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
}

std::int64_t WholeSequences::row_of(std::int64_t id) const {
  return std::lower_bound(ids_.begin(), ids_.end(), id) - ids_.begin();
}

void WholeSequences::map_rank(hdf5::VirtualDataset& whole, int rank, int dim,
                              const std::string& file, const std::string& dataset) const {
  const std::int64_t* mine = &all_ids_[static_cast<std::size_t>(rank * num_local_)];
  const std::int64_t* segments = &segments_[static_cast<std::size_t>(rank * numbers_of_rank)];
  const Shape shape =
      whole.shape().with_dim(dim, num_local_).with_dim(dim + 1, segments[1] + segments[3]);
  for (std::int64_t begin = 0; begin < num_local_;) {
    std::int64_t end = begin + 1;  // of sequences that follow each other in the whole, too
    while (end < num_local_ && row_of(mine[end]) == row_of(mine[begin]) + end - begin) ++end;
    std::int64_t offset = 0;
    for (std::int64_t segment = 0; segment < 2; ++segment) {
      const std::int64_t count = segments[2 * segment + 1];
      whole.map(file, dataset, shape, part_of(shape, dim, begin, end - begin, offset, count),
                part_of(whole.shape(), dim, row_of(mine[begin]), end - begin, segments[2 * segment],
                        count));
      offset += count;
    }
    begin = end;
  }
}

}  // namespace switchyard
