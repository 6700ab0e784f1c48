// Ulysses (Jacobs et al., DeepSpeed-Ulysses, 2023): an all-to-all turns rows of a part of a
// sequence with all heads into rows of the whole sequence with a part of the heads, and back. U
// ranks; rank u gets heads u A / U ... of A. A number of kv heads below U is replicated: several
// ranks then get the same head, and what comes back of it is added in rank order.
//
// A rank sends (U - 1) / U of what it holds (U / G of it for replicated heads). Borrows the group.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/group/exchange_progress.hpp"
#include "parallel/group/group.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

// Columns of a buffer of local rows: num_heads heads of head_cols columns each.
struct HeadColumns {
  TensorView local;  // [S n, num_heads * head_cols]
  std::int64_t num_heads = 0;
  std::int64_t head_cols = 0;
};

class HeadExchange {
 public:
  // num_local: positions of a sequence that each rank of the group holds. Buffers for rows of at
  // most max_row_bytes after an exchange of heads.
  HeadExchange(Group& group, Device& device, std::int64_t num_sequences,
               std::vector<std::int64_t> num_local, std::int64_t max_row_bytes,
               ExchangeProgress& progress);

  // Heads of a rank, of num_heads in all: num_heads / U, or 1 where they are replicated.
  static std::int64_t heads_each(std::int64_t num_heads, int num_ranks);
  static std::int64_t first_head(std::int64_t num_heads, int num_ranks, int rank);

  std::int64_t num_gathered() const { return num_gathered_; }  // positions of a sequence, all ranks

  // gathered: [S num_gathered, columns of this rank's heads of each part, side by side], of the
  // parts' type; written.
  void to_heads(std::span<const HeadColumns> parts, const TensorView& gathered);
  // The way back: writes the parts, rounding if they are of another type. A head that several ranks
  // hold needs gathered in f32: their rows are added.
  void to_rows(const TensorView& gathered, std::span<const HeadColumns> parts);

 private:
  std::int64_t own_rows() const { return num_sequences_ * num_local_[own_]; }
  std::int64_t row_cols(std::span<const HeadColumns> parts) const;
  TensorView buffer(const Tensor& bytes, DType dtype, std::int64_t rows, std::int64_t cols) const;
  // Calls each(row of the sequence-ordered buffer, row of the rank-ordered one, count).
  template <class Each>
  void for_each_piece(Device& device, Each each) const;
  void exchange(const TensorView& send, std::span<const std::int64_t> send_rows,
                const TensorView& recv, std::span<const std::int64_t> recv_rows);

  Group& group_;
  std::int64_t num_sequences_;
  std::vector<std::int64_t> num_local_;
  std::size_t own_;
  std::int64_t num_gathered_ = 0;
  std::vector<std::int64_t> own_rows_each_;  // rows of this rank, once for each
  std::vector<std::int64_t> gathered_rows_;  // rows of each rank
  Tensor local_;   // u8: [U, S n, row]: rows of this rank, by the rank that has the heads
  Tensor pieces_;  // u8: [S num_gathered, row] by the rank that has the rows; only if S > 1
  ExchangeProgress& progress_;
};

}  // namespace switchyard
