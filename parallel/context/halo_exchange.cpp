#include "parallel/context/halo_exchange.hpp"

#include <algorithm>

#include "kernels/rows/elementwise.hpp"
#include "tensor/alike.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// The positions that both hold, ascending.
std::vector<PositionRange> common(std::span<const PositionRange> a,
                                  std::span<const PositionRange> b) {
  std::vector<PositionRange> segments;
  for (const PositionRange& one : a)
    for (const PositionRange& other : b) {
      const std::int64_t begin = std::max(one.begin, other.begin);
      const std::int64_t end = std::min(one.end(), other.end());
      if (begin < end) segments.push_back({begin, end - begin});
    }
  return segments;
}

// `rows` rows as wide and of the type of `like`, in a message.
TensorView message_of(const Tensor& bytes, const TensorView& like, std::int64_t rows) {
  return bytes->reinterpret(like.dtype, {rows, like.cols()});
}

}  // namespace

// Positions as rows of those who store `rows`.
HaloExchange::Runs HaloExchange::runs_in(std::span<const PositionRange> positions,
                                         std::span<const PositionRange> rows) {
  Runs runs;
  for (const PositionRange& each : positions)
    runs.push_back({count_before(rows, each.begin), each.count});
  return runs;
}

HaloExchange::HaloExchange(Group& group, std::span<const std::vector<PositionRange>> held,
                           std::span<const std::vector<PositionRange>> read,
                           std::int64_t num_sequences, ExchangeProgress& progress)
    : group_(group), progress_(progress), num_sequences_(num_sequences) {
  expect(std::ssize(held) == group.size() && std::ssize(read) == group.size(),
         "the segments of each rank of the group");
  const auto own = static_cast<std::size_t>(group_.rank());
  const std::vector<PositionRange>& mine = held[own];
  num_local_ = num_positions(mine);
  read_ = read[own];
  own_ = runs_in(mine, mine);
  own_gathered_ = runs_in(mine, read_);
  for (std::size_t rank = 0; rank < held.size(); ++rank) {
    std::vector<PositionRange> given;
    std::vector<PositionRange> taken;
    if (rank != own) {
      given = common(mine, read[rank]);
      taken = common(read_, held[rank]);
    }
    given_.push_back(runs_in(given, mine));
    given_gathered_.push_back(runs_in(given, read_));
    taken_.push_back(runs_in(taken, read_));
    given_rows_.push_back(num_sequences * num_positions(given));
    taken_rows_.push_back(num_sequences * num_positions(taken));
    num_given_ += given_rows_.back();
    num_taken_ += taken_rows_.back();
  }
  expect(num_taken_ == num_sequences * (num_positions(read_) - num_local_),
         "each position that is read to be held by one rank");
}

template <class Each>
void HaloExchange::for_each_run(Device& device, const std::vector<Runs>& runs,
                                std::int64_t sequence_rows, Each each) const {
  std::int64_t first = 0;  // of a rank's rows in the message
  for (const Runs& of_rank : runs) {
    std::int64_t length = 0;  // of a sequence
    for (const Run& run : of_rank) length += run.count;
    for_each_alike(device, num_sequences_, [&](std::int64_t s) {
      std::int64_t message_row = first + s * length;
      for (const Run& run : of_rank) {
        each(s * sequence_rows + run.begin, message_row, run.count);
        message_row += run.count;
      }
    });
    first += num_sequences_ * length;
  }
}

template <class Each>
void HaloExchange::for_each_own(Device& device, Each each) const {
  const std::int64_t num_read = num_positions(read_);
  for_each_alike(device, num_sequences_, [&](std::int64_t s) {
    for (std::size_t i = 0; i < own_.size(); ++i)
      each(s * num_local_ + own_[i].begin, s * num_read + own_gathered_[i].begin, own_[i].count);
  });
}

void HaloExchange::gather(std::span<const TensorView> rows, const TensorView& gathered,
                          const HaloMessages& messages) const {
  const auto copy_rows = [&](std::int64_t from, const TensorView& to) {
    std::int64_t col = 0;
    for (const TensorView& part : rows) {
      kernels::copy(part.slice_rows(from, from + to.rows()), to.slice_cols(col, col + part.cols()));
      col += part.cols();
    }
  };
  const TensorView send = message_of(messages.outgoing, gathered, num_given_);
  const TensorView recv = message_of(messages.incoming, gathered, num_taken_);
  for_each_run(*gathered.device, given_, num_local_,
               [&](std::int64_t from, std::int64_t to, std::int64_t count) {
                 copy_rows(from, send.slice_rows(to, to + count));
               });
  Event event = group_.start_all_to_all_v(send, given_rows_, recv, taken_rows_);
  for_each_own(*gathered.device, [&](std::int64_t from, std::int64_t to, std::int64_t count) {
    copy_rows(from, gathered.slice_rows(to, to + count));
  });
  progress_.wait(event);
  for_each_run(*gathered.device, taken_, num_positions(read_),
               [&](std::int64_t to, std::int64_t from, std::int64_t count) {
                 kernels::copy(recv.slice_rows(from, from + count),
                               gathered.slice_rows(to, to + count));
               });
}

void HaloExchange::bring_home(const TensorView& gathered, const HaloMessages& messages) const {
  const std::int64_t num_read = num_positions(read_);
  const TensorView send = message_of(messages.outgoing, gathered, num_taken_);
  const TensorView recv = message_of(messages.incoming, gathered, num_given_);
  for_each_run(*gathered.device, taken_, num_read,
               [&](std::int64_t from, std::int64_t to, std::int64_t count) {
                 kernels::copy(gathered.slice_rows(from, from + count),
                               send.slice_rows(to, to + count));
               });
  Event event = group_.start_all_to_all_v(send, taken_rows_, recv, given_rows_);
  progress_.wait(event);
  for_each_run(*gathered.device, given_gathered_, num_read,
               [&](std::int64_t to, std::int64_t from, std::int64_t count) {
                 const TensorView sum = gathered.slice_rows(to, to + count);
                 kernels::add(sum, recv.slice_rows(from, from + count), sum);
               });
}

void HaloExchange::take_own(const TensorView& gathered, const TensorView& rows) const {
  for_each_own(*gathered.device, [&](std::int64_t to, std::int64_t from, std::int64_t count) {
    kernels::copy(gathered.slice_rows(from, from + count), rows.slice_rows(to, to + count));
  });
}

}  // namespace switchyard
