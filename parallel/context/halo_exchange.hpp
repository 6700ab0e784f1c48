// Rows that a layer reads beside its own, where sequences are split over ranks: the keys of a
// window, or the positions before a convolution's. Every rank gets exactly the rows of the
// positions that it reads, in one all-to-all, and the gradients of these rows go home the same way:
// their owner adds them to its own in rank order. Everybody is borrowed; buffers are the caller's.
//
// Legend: P ranks, S sequences, n positions that this rank holds, m positions that it reads, its
// own among them. Local rows are [S n, ...] (sequence by sequence, ascending), gathered rows [S m,
// ...].
#pragma once

#include <span>
#include <vector>

#include "parallel/group/exchange_progress.hpp"
#include "parallel/group/group.hpp"
#include "tensor/position_range.hpp"

namespace switchyard {

// Rows on their way, of any type and width. Exchanges that follow each other may share them.
struct HaloMessages {
  Tensor outgoing;  // u8
  Tensor incoming;  // u8
};

class HaloExchange {
 public:
  // By rank of the group, ascending and apart: the positions that it holds (none is legal), and
  // those that it reads, its own among them. Every position that is read is held by one rank.
  HaloExchange(Group& group, std::span<const std::vector<PositionRange>> held,
               std::span<const std::vector<PositionRange>> read, std::int64_t num_sequences,
               ExchangeProgress& progress);

  const std::vector<PositionRange>& positions() const { return read_; }  // of a gathered sequence
  std::int64_t num_gathered() const { return num_sequences_ * num_positions(read_); }  // S m
  // Rows that this rank sends in gather() and receives in bring_home(), and the other way round.
  std::int64_t num_given() const { return num_given_; }
  std::int64_t num_taken() const { return num_taken_; }

  // rows: [S n, c] tensors of one type, whose columns stand beside each other in gathered
  // [S m, sum of c], which is written.
  void gather(std::span<const TensorView> rows, const TensorView& gathered,
              const HaloMessages& messages) const;
  // gathered: [S m, c], gradients of gathered rows, f32 or bf16. Each owner adds what the others
  // have of its rows, by ascending rank, to its own rows of `gathered`.
  void bring_home(const TensorView& gathered, const HaloMessages& messages) const;
  // This rank's own rows among the gathered ones: rows [S n, c] is written.
  void take_own(const TensorView& gathered, const TensorView& rows) const;

 private:
  // Rows of a sequence that stay together.
  struct Run {
    std::int64_t begin = 0;
    std::int64_t count = 0;
  };
  using Runs = std::vector<Run>;
  static Runs runs_in(std::span<const PositionRange> positions,
                      std::span<const PositionRange> rows);
  // Calls each(row of a buffer with sequence_rows rows a sequence, row of a message, count).
  template <class Each>
  void for_each_run(Device& device, const std::vector<Runs>& runs, std::int64_t sequence_rows,
                    Each each) const;
  // Calls each(local row, gathered row, count) for this rank's own.
  template <class Each>
  void for_each_own(Device& device, Each each) const;

  Group& group_;
  ExchangeProgress& progress_;
  std::int64_t num_sequences_;
  std::int64_t num_local_;           // n
  std::vector<PositionRange> read_;  // here
  // Runs of a rank are in ascending position on both sides.
  Runs own_;                                           // this rank's rows ...
  Runs own_gathered_;                                  // ... as gathered rows
  std::vector<Runs> given_;                            // by rank: rows that go there ...
  std::vector<Runs> given_gathered_;                   // ... as gathered rows here
  std::vector<Runs> taken_;                            // by rank: gathered rows that come from it
  std::vector<std::int64_t> given_rows_, taken_rows_;  // of all sequences, by rank
  std::int64_t num_given_ = 0, num_taken_ = 0;
};

}  // namespace switchyard
