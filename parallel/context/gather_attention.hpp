// Attention over keys and values that are brought together first: every rank gets exactly the rows
// that some query of its own can see, in one all-to-all, computes with one call of the kernel, and
// sends the gradients back the same way; their owner adds them to its own in rank order, in fp32.
// Under a window of W positions these rows are its own and at most W - 1 before each of its
// segments (a halo); without a window it is the plain all-gather, whose memory grows with the whole
// sequence.
//
// d = num_kv_heads * head_dim, b bytes of an element, m rows that other ranks need of this one (at
// most 2 (W - 1) under a window, at most (P - 1) n without): a rank sends 2 m S d b bytes forward,
// and in the backward pass the same again and 2 m' S d 4 for the m' rows that it needed of others.
#pragma once

#include <map>

#include "parallel/context/attention_part.hpp"
#include "parallel/group/exchange_progress.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

class GatherAttention {
 public:
  // held: the segments of each rank of the group. windows: those that will be asked for; 0: none.
  // Borrows group, kernel and progress.
  GatherAttention(Group& group, AttentionPartKernel& kernel,
                  std::vector<std::vector<PositionRange>> held,
                  std::span<const std::int64_t> windows, ExchangeProgress& progress);

  // As RingAttention.
  void forward(std::int64_t window, const TensorView& sinks, const AttentionInputs& inputs,
               const TensorView& out, const TensorView& lse, const kernels::Poll& poll);
  void backward(std::int64_t window, const AttentionInputs& inputs, const AttentionResults& results,
                const AttentionInputs& gradients, const kernels::Poll& poll);

  // The most keys a sequence that a rank of `held` meets under any of the windows.
  static std::int64_t max_keys(std::span<const std::vector<PositionRange>> held, int rank,
                               std::span<const std::int64_t> windows);

 private:
  // Rows of a sequence that stay together.
  struct Run {
    std::int64_t begin = 0;
    std::int64_t count = 0;
  };
  // Who sends what under one window. Runs of a rank are in ascending position on both sides.
  struct Exchange {
    std::vector<PositionRange> keys;      // positions gathered here, its own among them
    std::vector<Run> own;                 // this rank's rows, one run for each of its segments ...
    std::vector<Run> own_gathered;        // ... as rows gathered here
    std::vector<std::vector<Run>> given;  // by rank: rows that go there ...
    std::vector<std::vector<Run>> given_gathered;  // ... as rows gathered here
    std::vector<std::vector<Run>> taken;           // by rank: rows gathered here that come from it
    std::vector<std::int64_t> given_rows, taken_rows;  // of all sequences, by rank
    std::int64_t num_given = 0, num_taken = 0;
    std::int64_t key_length() const { return num_positions(keys); }
  };
  Exchange exchange_for(std::int64_t window) const;

  AttentionPart part_of(const Exchange& exchange, std::int64_t window) const;
  // k | v of this rank and of the others as the rows of the exchange's keys.
  TensorView gather(const Exchange& exchange, const AttentionInputs& inputs);
  // Brings gradients of gathered rows to their owners, who add them to those of their own rows.
  void bring_home(const Exchange& exchange, const TensorView& gathered);
  TensorView message(const Tensor& bytes, DType dtype, std::int64_t rows) const;
  // Calls each(row of a buffer with sequence_rows rows a sequence, row of a message, count).
  template <class Each>
  void for_each_run(const std::vector<std::vector<Run>>& runs, std::int64_t sequence_rows,
                    Each each) const;

  Group& group_;
  AttentionPartKernel& kernel_;
  ExchangeProgress& progress_;
  std::vector<std::vector<PositionRange>> held_;
  std::int64_t num_local_;
  std::map<std::int64_t, Exchange> exchanges_;  // by window
  Tensor keys_;                                 // [S keys, 2 G D]: keys | values
  Tensor key_gradients_;                        // f32, likewise
  Tensor outgoing_;                             // u8: rows sent to others, of either type
  Tensor incoming_;
};

}  // namespace switchyard
