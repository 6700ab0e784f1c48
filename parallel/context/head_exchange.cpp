#include "parallel/context/head_exchange.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/rows/elementwise.hpp"
#include "tensor/alike.hpp"
#include "tensor/error.hpp"

namespace switchyard {

HeadExchange::HeadExchange(Group& group, Device& device, std::int64_t num_sequences,
                           std::vector<std::int64_t> num_local, std::int64_t max_row_bytes,
                           ExchangeProgress& progress)
    : group_(group),
      num_sequences_(num_sequences),
      num_local_(std::move(num_local)),
      own_(static_cast<std::size_t>(group.rank())),
      progress_(progress) {
  expect(std::ssize(num_local_) == group.size(), "the positions of each rank of the group");
  num_gathered_ = std::accumulate(num_local_.begin(), num_local_.end(), std::int64_t{0});
  own_rows_each_.assign(num_local_.size(), own_rows());
  for (const std::int64_t n : num_local_) gathered_rows_.push_back(num_sequences * n);
  local_ = Tensor(device, Purpose::communication, DType::u8,
                  {group.size() * own_rows() * max_row_bytes});
  if (num_sequences > 1)
    pieces_ = Tensor(device, Purpose::communication, DType::u8,
                     {num_sequences * num_gathered_ * max_row_bytes});
}

std::int64_t HeadExchange::heads_each(std::int64_t num_heads, int num_ranks) {
  return std::max<std::int64_t>(num_heads / num_ranks, 1);
}

std::int64_t HeadExchange::first_head(std::int64_t num_heads, int num_ranks, int rank) {
  return num_heads * rank / num_ranks;
}

std::int64_t HeadExchange::row_cols(std::span<const HeadColumns> parts) const {
  std::int64_t cols = 0;
  for (const HeadColumns& part : parts) {
    expect(part.num_heads % group_.size() == 0 || group_.size() % part.num_heads == 0,
           "a number of heads that is a multiple of the ranks, or divides them");
    expect(part.local.rows() == own_rows() && part.local.cols() == part.num_heads * part.head_cols,
           "this rank's rows, with all heads");
    cols += heads_each(part.num_heads, group_.size()) * part.head_cols;
  }
  return cols;
}

TensorView HeadExchange::buffer(const Tensor& bytes, DType dtype, std::int64_t rows,
                                std::int64_t cols) const {
  expect(rows * cols * size_of(dtype) <= bytes->num_bytes(), "rows of at most max_row_bytes");
  return bytes->reinterpret(dtype, {rows, cols});
}

template <class Each>
void HeadExchange::for_each_piece(Device& device, Each each) const {
  std::int64_t first = 0;  // position of a rank's rows in a sequence
  std::int64_t row = 0;    // in order of ranks
  for (const std::int64_t count : num_local_) {
    for_each_alike(device, num_sequences_, [&](std::int64_t s) {
      each(s * num_gathered_ + first, row + s * count, count);
    });
    first += count;
    row += num_sequences_ * count;
  }
}

void HeadExchange::exchange(const TensorView& send, std::span<const std::int64_t> send_rows,
                            const TensorView& recv, std::span<const std::int64_t> recv_rows) {
  Event event = group_.start_all_to_all_v(send, send_rows, recv, recv_rows);
  progress_.wait(event);
}

void HeadExchange::to_heads(std::span<const HeadColumns> parts, const TensorView& gathered) {
  const int num_ranks = group_.size();
  const std::int64_t cols = row_cols(parts);
  const TensorView send = buffer(local_, gathered.dtype, num_ranks * own_rows(), cols);
  for (int rank = 0; rank < num_ranks; ++rank) {
    const TensorView rows = send.slice_rows(rank * own_rows(), (rank + 1) * own_rows());
    std::int64_t to = 0;
    for (const HeadColumns& part : parts) {
      const std::int64_t from = first_head(part.num_heads, num_ranks, rank) * part.head_cols;
      const std::int64_t count = heads_each(part.num_heads, num_ranks) * part.head_cols;
      kernels::copy(part.local.slice_cols(from, from + count), rows.slice_cols(to, to + count));
      to += count;
    }
  }
  const bool is_ordered = num_sequences_ == 1;  // rows of one sequence come in order
  const TensorView recv =
      is_ordered ? gathered : buffer(pieces_, gathered.dtype, gathered.rows(), cols);
  exchange(send, own_rows_each_, recv, gathered_rows_);
  if (is_ordered) return;
  for_each_piece(*gathered.device,
                 [&](std::int64_t in_sequence, std::int64_t in_message, std::int64_t count) {
                   kernels::copy(recv.slice_rows(in_message, in_message + count),
                                 gathered.slice_rows(in_sequence, in_sequence + count));
                 });
}

void HeadExchange::to_rows(const TensorView& gathered, std::span<const HeadColumns> parts) {
  const int num_ranks = group_.size();
  const std::int64_t cols = row_cols(parts);
  TensorView send = gathered;
  if (num_sequences_ > 1) {
    send = buffer(pieces_, gathered.dtype, gathered.rows(), cols);
    for_each_piece(*gathered.device,
                   [&](std::int64_t in_sequence, std::int64_t in_message, std::int64_t count) {
                     kernels::copy(gathered.slice_rows(in_sequence, in_sequence + count),
                                   send.slice_rows(in_message, in_message + count));
                   });
  }
  const TensorView recv = buffer(local_, gathered.dtype, num_ranks * own_rows(), cols);
  exchange(send, gathered_rows_, recv, own_rows_each_);
  std::int64_t from = 0;
  for (const HeadColumns& part : parts) {
    const std::int64_t count = heads_each(part.num_heads, num_ranks) * part.head_cols;
    const auto from_rank = [&](int rank) {
      return recv.slice_rows(rank * own_rows(), (rank + 1) * own_rows())
          .slice_cols(from, from + count);
    };
    for (int rank = 0; rank < num_ranks;) {
      const std::int64_t head = first_head(part.num_heads, num_ranks, rank);
      const TensorView sum = from_rank(rank);
      for (++rank; rank < num_ranks && first_head(part.num_heads, num_ranks, rank) == head; ++rank)
        kernels::add(sum, from_rank(rank), sum);
      kernels::copy(sum,
                    part.local.slice_cols(head * part.head_cols, head * part.head_cols + count));
    }
    from += count;
  }
}

}  // namespace switchyard
