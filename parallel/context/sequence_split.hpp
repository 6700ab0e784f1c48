// Which positions of a sequence each rank of the context axis holds. With R ranks on the ring and U
// ranks of Ulysses beside each other (context rank = ring rank * U + Ulysses rank) a sequence is
// cut into chunks, and a ring rank's chunks are shared by its U ranks as contiguous pieces.
//   zigzag      2 R chunks; ring rank r has chunks r and 2 R - 1 - r: under a causal mask every
//               rank then meets the same number of keys (Zhu, ring-flash-attention, 2024)
//   contiguous  R chunks; ring rank r has chunk r
// A rank holds one or two segments, ascending, so its local rows ascend in position. A plain value.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/config_mistake.hpp"
#include "tensor/choice.hpp"
#include "tensor/position_range.hpp"

namespace switchyard {

enum class SequenceLayout : std::uint8_t { zigzag, contiguous };
constexpr std::array<std::string_view, 2> choice_names(SequenceLayout) {
  return {"zigzag", "contiguous"};
}

class SequenceSplit {
 public:
  // The whole sequence on one rank.
  explicit SequenceSplit(std::int64_t length);
  // ConfigError with the legal choices if the chunks or pieces are not equal and `pad` is false.
  // With `pad` they may differ by one position; travelling blocks are then filled up, so results
  // stay exact. Every rank must hold at least one position.
  SequenceSplit(std::int64_t length, std::int64_t ring, std::int64_t ulysses, SequenceLayout layout,
                bool pad);
  // What that constructor would throw.
  static std::vector<ConfigMistake> mistakes(std::int64_t length, std::int64_t ring,
                                             std::int64_t ulysses, SequenceLayout layout, bool pad);

  std::int64_t length() const { return length_; }
  int ring() const { return ring_; }
  int ulysses() const { return ulysses_; }
  int num_ranks() const { return ring_ * ulysses_; }

  std::vector<PositionRange> segments(int context_rank) const;
  // What the Ulysses ranks of a ring rank hold together.
  std::vector<PositionRange> ring_segments(int ring_rank) const;
  std::int64_t num_local(int context_rank) const;
  std::int64_t num_ring_local(int ring_rank) const;
  std::int64_t max_local() const;       // of any context rank
  std::int64_t max_ring_local() const;  // of any ring rank
  // The position of every local row, ascending.
  std::vector<std::int32_t> positions(int context_rank) const;

 private:
  struct Unchecked {};
  SequenceSplit(Unchecked, std::int64_t length, std::int64_t ring, std::int64_t ulysses,
                SequenceLayout layout);
  std::vector<ConfigMistake> wrong_shares(bool pad) const;
  PositionRange chunk(int i) const;  // of the num_chunks()
  int num_chunks() const { return layout_ == SequenceLayout::zigzag ? 2 * ring_ : ring_; }

  std::int64_t length_;
  int ring_ = 1;
  int ulysses_ = 1;
  SequenceLayout layout_ = SequenceLayout::contiguous;
};

}  // namespace switchyard
