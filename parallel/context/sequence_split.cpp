#include "parallel/context/sequence_split.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Where an equal split would be legal: multiples of `step` around the length.
std::string lengths_around(std::int64_t length, std::int64_t step) {
  const std::int64_t below = length / step * step;
  return below > 0 ? fmt::format("{} or {}", below, below + step) : fmt::format("{}", step);
}

ConfigMistake unequal_shares(const SequenceSplit& split, SequenceLayout layout, std::int64_t step) {
  const std::int64_t ranks = split.num_ranks();
  std::string text = fmt::format(
      "ring {} x ulysses {} = {} ranks cannot share {} positions equally; the {} layout needs a "
      "multiple of {}: make model.sequence_length {}, or set parallel.context.pad to true",
      split.ring(), split.ulysses(), ranks, split.length(), name_of(layout), step,
      lengths_around(split.length(), step));
  if (layout == SequenceLayout::zigzag && split.length() % ranks == 0)
    text += ", or parallel.context.layout to contiguous";
  return {{"parallel.context", "parallel.context.ring", "parallel.context.ulysses",
           "model.sequence_length", "parallel.context.layout", "parallel.context.pad"},
          std::move(text)};
}

}  // namespace

SequenceSplit::SequenceSplit(std::int64_t length) : length_(length) {
  expect(length >= 1, "a sequence of at least one position");
}

SequenceSplit::SequenceSplit(std::int64_t length, std::int64_t ring, std::int64_t ulysses,
                             SequenceLayout layout, bool pad)
    : SequenceSplit(Unchecked{}, length, ring, ulysses, layout) {
  require_none(wrong_shares(pad));
}

SequenceSplit::SequenceSplit(Unchecked, std::int64_t length, std::int64_t ring,
                             std::int64_t ulysses, SequenceLayout layout)
    : length_(length),
      ring_(static_cast<int>(ring)),
      ulysses_(static_cast<int>(ulysses)),
      // One chunk or two neighbours are the same to a ring of one rank.
      layout_(ring == 1 ? SequenceLayout::contiguous : layout) {
  expect(length >= 1 && ring >= 1 && ulysses >= 1, "a sequence and ranks to share it");
}

std::vector<ConfigMistake> SequenceSplit::mistakes(std::int64_t length, std::int64_t ring,
                                                   std::int64_t ulysses, SequenceLayout layout,
                                                   bool pad) {
  return SequenceSplit(Unchecked{}, length, ring, ulysses, layout).wrong_shares(pad);
}

std::vector<ConfigMistake> SequenceSplit::wrong_shares(bool pad) const {
  const std::int64_t step = std::lcm<std::int64_t>(num_chunks(), num_ranks());
  if (!pad && length_ % step != 0) return {unequal_shares(*this, layout_, step)};
  for (int rank = 0; rank < num_ranks(); ++rank)
    if (num_local(rank) == 0)
      return {{{"parallel.context", "parallel.context.ring", "parallel.context.ulysses",
                "model.sequence_length", "parallel.context.layout"},
               fmt::format("ring {} x ulysses {} = {} ranks cannot share {} positions; every rank "
                           "must hold at least one, so use at most {} ranks",
                           ring_, ulysses_, num_ranks(), length_,
                           std::max<std::int64_t>(1, length_ / 2))}};
  return {};
}

PositionRange SequenceSplit::chunk(int i) const {
  const std::int64_t begin = length_ * i / num_chunks();
  return {begin, length_ * (i + 1) / num_chunks() - begin};
}

std::vector<PositionRange> SequenceSplit::ring_segments(int ring_rank) const {
  expect(0 <= ring_rank && ring_rank < ring_, "a rank of the ring");
  if (layout_ == SequenceLayout::contiguous) return {chunk(ring_rank)};
  return joined({chunk(ring_rank), chunk(num_chunks() - 1 - ring_rank)});
}

std::vector<PositionRange> SequenceSplit::segments(int context_rank) const {
  expect(0 <= context_rank && context_rank < num_ranks(), "a rank of the context axis");
  const std::vector<PositionRange> whole = ring_segments(context_rank / ulysses_);
  const std::int64_t count = num_positions(whole);
  const std::int64_t piece = context_rank % ulysses_;
  return slice_of(whole, count * piece / ulysses_, count * (piece + 1) / ulysses_);
}

std::int64_t SequenceSplit::num_local(int context_rank) const {
  return num_positions(segments(context_rank));
}

std::int64_t SequenceSplit::num_ring_local(int ring_rank) const {
  return num_positions(ring_segments(ring_rank));
}

std::int64_t SequenceSplit::max_local() const {
  std::int64_t most = 0;
  for (int rank = 0; rank < num_ranks(); ++rank) most = std::max(most, num_local(rank));
  return most;
}

std::int64_t SequenceSplit::max_ring_local() const {
  std::int64_t most = 0;
  for (int rank = 0; rank < ring_; ++rank) most = std::max(most, num_ring_local(rank));
  return most;
}

std::vector<std::int32_t> SequenceSplit::positions(int context_rank) const {
  std::vector<std::int32_t> positions;
  for (const PositionRange& segment : segments(context_rank))
    for (std::int64_t p = segment.begin; p < segment.end(); ++p)
      positions.push_back(static_cast<std::int32_t>(p));
  return positions;
}

}  // namespace switchyard
