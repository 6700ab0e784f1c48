// All-to-all of rows, exchanges under way together, and the promise that sums have the same bits on
// every rank and in every repetition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "tensor/error.hpp"
#include "tensor/random.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard {
namespace {

using test::world;
using Rows = std::vector<std::int64_t>;

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

template <class T>
T element_of(int from, int to, std::int64_t row, std::int64_t col) {
  const std::int64_t value = (from * 31 + to * 17 + row * 5 + col) % 251;
  if constexpr (std::is_same_v<T, BFloat16>)
    return to_bf16(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

// One exchange: its buffers, its counts and what must arrive. rows(from, to) are any counts.
template <class T>
class Exchange {
 public:
  template <class RowsOf>
  Exchange(Group& group, Device& device, std::int64_t hidden, RowsOf rows)
      : group_(group), hidden_(hidden) {
    for (int p = 0; p < group.size(); ++p) {
      send_rows_.push_back(rows(group.rank(), p));
      recv_rows_.push_back(rows(p, group.rank()));
    }
    const auto total = [](const Rows& counts) {
      return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    };
    send_ = Tensor(device, Purpose::communication, DTypeOf<T>::value, {total(send_rows_), hidden});
    recv_ = Tensor(device, Purpose::communication, DTypeOf<T>::value, {total(recv_rows_), hidden});
    T* out = send_->template as<T>();
    for (int p = 0; p < group.size(); ++p)
      for (std::int64_t row = 0; row < send_rows_[index(p)]; ++row)
        for (std::int64_t col = 0; col < hidden; ++col)
          *out++ = element_of<T>(group.rank(), p, row, col);
  }

  Event start() { return group_.start_all_to_all_v(send_, send_rows_, recv_, recv_rows_); }

  // The i-th of n pieces: of the rows between any two ranks the i-th n-th, wherever they lie.
  Event start_piece(int i, int n) {
    const auto piece = [i, n](const Rows& counts) {
      std::pair<Rows, Rows> rows;  // first and count
      std::int64_t begin = 0;
      for (const std::int64_t count : counts) {
        rows.first.push_back(begin + count * i / n);
        rows.second.push_back(count * (i + 1) / n - count * i / n);
        begin += count;
      }
      return rows;
    };
    const auto [send_first, send_count] = piece(send_rows_);
    const auto [recv_first, recv_count] = piece(recv_rows_);
    return group_.start_all_to_all_v(send_, {send_first, send_count}, recv_,
                                     {recv_first, recv_count});
  }

  std::int64_t num_wrong() const {
    std::int64_t wrong = 0;
    const T* in = recv_->template as<T>();
    for (int p = 0; p < group_.size(); ++p)
      for (std::int64_t row = 0; row < recv_rows_[index(p)]; ++row)
        for (std::int64_t col = 0; col < hidden_; ++col) {
          const T wanted = element_of<T>(p, group_.rank(), row, col);
          wrong += std::memcmp(in++, &wanted, sizeof(T)) != 0;
        }
    return wrong;
  }

 private:
  Group& group_;
  std::int64_t hidden_;
  Rows send_rows_;
  Rows recv_rows_;
  Tensor send_;
  Tensor recv_;
};

class GroupOrderTest : public ::testing::Test {
 protected:
  Group& group_ = world();
  const int rank_ = world().rank();
  const int size_ = world().size();
  std::unique_ptr<Device> device_ = make_cpu_device();
};

std::int64_t uneven(int from, int to) {
  return (from * 3 + to * 5) % 7;
}

TEST_F(GroupOrderTest, AllToAllOfUnevenRows) {
  Exchange<float> floats(group_, *device_, 33, uneven);
  floats.start().wait_host();
  EXPECT_EQ(floats.num_wrong(), 0);
  Exchange<BFloat16> halves(group_, *device_, 5, uneven);
  halves.start().wait_host();
  EXPECT_EQ(halves.num_wrong(), 0);
  Exchange<std::int32_t> integers(group_, *device_, 1, uneven);
  integers.start().wait_host();
  EXPECT_EQ(integers.num_wrong(), 0);
}

// The last piece travels first, and all are under way together; some pieces are empty.
TEST_F(GroupOrderTest, AllToAllInPieces) {
  for (const int num_pieces : {1, 2, 3, 5}) {
    Exchange<float> floats(group_, *device_, 33, uneven);
    Exchange<std::int32_t> integers(group_, *device_, 1, [this](int from, int to) {
      return to == size_ - 1 ? 0 : uneven(from, to);
    });
    std::vector<Event> events;
    for (int i = num_pieces; i-- > 0;) {
      events.push_back(floats.start_piece(i, num_pieces));
      events.push_back(integers.start_piece(i, num_pieces));
    }
    for (Event& event : events) event.wait_host();
    EXPECT_EQ(floats.num_wrong(), 0) << num_pieces << " pieces";
    EXPECT_EQ(integers.num_wrong(), 0) << num_pieces << " pieces";
  }
}

// What is not named stays as it is.
TEST_F(GroupOrderTest, AllToAllOfAPieceLeavesTheOtherRows) {
  const Rows first(index(size_), 1), count(index(size_), 1);
  std::vector<std::int32_t> sent(index(3), 0), received(index(3 * size_), -1);
  sent[1] = 100 + rank_;
  Rows from;
  for (int p = 0; p < size_; ++p) from.push_back(3 * p + 2);
  group_
      .start_all_to_all_v(view_of(*device_, sent.data(), {3, 1}), {first, count},
                          view_of(*device_, received.data(), {3 * size_, 1}), {from, count})
      .wait_host();
  for (int p = 0; p < size_; ++p) {
    EXPECT_EQ(received[index(3 * p + 2)], 100 + p);
    EXPECT_EQ(received[index(3 * p)], -1);
    EXPECT_EQ(received[index(3 * p + 1)], -1);
  }
  const Rows beyond(index(size_), 3);
  const TensorView view = view_of(*device_, sent.data(), {3, 1});
  EXPECT_THROW(group_.start_all_to_all_v(view, {beyond, count}, view, {first, count}),
               InternalError);
}

// Three runs for each rank, of which every third is empty, taken apart on arrival: run i of rank p
// becomes the p-th of the i-th third.
TEST_F(GroupOrderTest, AllToAllOfSeveralRunsPutsEachInItsPlace) {
  constexpr std::int64_t num_runs = 3;
  const auto length = [](int from, int to, std::int64_t run) {
    return (from + 2 * to + run) % 3 == 0 ? 0 : 1 + (from + to + run) % 4;
  };
  const auto value = [](int from, int to, std::int64_t run, std::int64_t row) {
    return static_cast<std::int32_t>(1000 * from + 100 * to + 10 * run + row);
  };
  Rows to_first, to_count, from_first, from_count;
  std::vector<std::size_t> ends;
  std::vector<std::int32_t> sent;
  std::int64_t num_received = 0;
  for (int p = 0; p < size_; ++p) {
    for (std::int64_t run = 0; run < num_runs; ++run) {
      to_first.push_back(std::ssize(sent));
      to_count.push_back(length(rank_, p, run));
      for (std::int64_t row = 0; row < to_count.back(); ++row)
        sent.push_back(value(rank_, p, run, row));
    }
    ends.push_back(to_count.size());
  }
  from_first.resize(to_first.size());
  from_count.resize(to_first.size());
  std::vector<std::int32_t> wanted;
  for (std::int64_t run = 0; run < num_runs; ++run)
    for (int p = 0; p < size_; ++p) {
      const std::size_t at = index(p * num_runs + run);
      from_first[at] = num_received;
      from_count[at] = length(p, rank_, run);
      num_received += from_count[at];
      for (std::int64_t row = 0; row < from_count[at]; ++row)
        wanted.push_back(value(p, rank_, run, row));
    }
  sent.push_back(-1);  // a vector that is never empty
  std::vector<std::int32_t> received(index(num_received + 1), -1);
  wanted.push_back(-1);
  group_
      .start_all_to_all_v(view_of(*device_, sent.data(), {std::ssize(sent), 1}),
                          {to_first, to_count, ends},
                          view_of(*device_, received.data(), {std::ssize(received), 1}),
                          {from_first, from_count, ends})
      .wait_host();
  EXPECT_EQ(received, wanted);
}

TEST_F(GroupOrderTest, AllToAllWithRanksThatSendOrReceiveNothing) {
  const int empty = size_ - 1;
  Exchange<float> silent(group_, *device_, 8, [empty](int from, int to) {
    return from == empty ? 0 : uneven(from, to);
  });
  silent.start().wait_host();
  EXPECT_EQ(silent.num_wrong(), 0);
  Exchange<float> unloved(group_, *device_, 8,
                          [empty](int from, int to) { return to == empty ? 0 : uneven(from, to); });
  unloved.start().wait_host();
  EXPECT_EQ(unloved.num_wrong(), 0);
  Exchange<float> nothing(group_, *device_, 8, [](int, int) { return 0; });
  nothing.start().wait_host();
  EXPECT_EQ(nothing.num_wrong(), 0);
}

// More than one piece of a message each, and one exchange of 64 MiB over all ranks.
TEST_F(GroupOrderTest, AllToAllOfLongMessages) {
  Exchange<float> medium(group_, *device_, 1024,
                         [](int from, int to) { return 200 + (from + 2 * to) * 101; });
  medium.start().wait_host();
  EXPECT_EQ(medium.num_wrong(), 0);
  const std::int64_t rows = (16 << 20) / 1024 / size_ / size_;
  Exchange<float> large(group_, *device_, 1024, [rows](int, int) { return rows; });
  large.start().wait_host();
  EXPECT_EQ(large.num_wrong(), 0);
}

// Started together, waited for in another order, with other exchanges of the group in between.
TEST_F(GroupOrderTest, ExchangesUnderWayTogetherDoNotMix) {
  std::vector<Exchange<std::int32_t>> exchanges;
  for (int i = 0; i < 6; ++i)
    exchanges.emplace_back(group_, *device_, 40, [i](int from, int to) {
      return (from * 3 + to * 5 + i * 11) % 13 + (i == 3 ? 9000 : 0);
    });
  std::vector<float> summed(40000, static_cast<float>(rank_ + 1));
  std::vector<std::int64_t> gathered(index(size_), rank_);
  std::vector<Event> events;
  for (int i = 0; i < 3; ++i) events.push_back(exchanges[index(i)].start());
  Event sum = group_.start_all_reduce(view_of(*device_, summed.data(), {40000}), ReduceOp::sum);
  for (int i = 3; i < 6; ++i) events.push_back(exchanges[index(i)].start());
  Event gather = group_.start_all_gather(view_of(*device_, gathered.data(), {size_}));
  gather.wait_host();
  std::rotate(events.begin(), events.begin() + 1 + rank_ % 3, events.end());
  for (Event& event : events) {
    group_.progress();
    event.wait_host();
  }
  while (!sum.test()) group_.progress();
  for (const Exchange<std::int32_t>& exchange : exchanges) EXPECT_EQ(exchange.num_wrong(), 0);
  for (float x : summed) ASSERT_EQ(x, static_cast<float>(size_ * (size_ + 1)) / 2);
  for (int p = 0; p < size_; ++p) EXPECT_EQ(gathered[index(p)], p);
}

TEST_F(GroupOrderTest, EventsMoveAndWaitWhenDestroyed) {
  std::vector<std::int64_t> data(index(size_), rank_);
  {
    Event event = group_.start_all_gather(view_of(*device_, data.data(), {size_}));
    Event moved = std::move(event);
    EXPECT_TRUE(event.test());  // NOLINT(bugprone-use-after-move): a moved-from event is done
    event.wait_host();
  }
  for (int p = 0; p < size_; ++p) EXPECT_EQ(data[index(p)], p);
  Event reused = group_.start_all_gather(view_of(*device_, data.data(), {size_}));
  std::fill(data.begin(), data.end(), rank_);
  reused = Event();  // waits for what it held
  EXPECT_TRUE(reused.test());
}

// Numbers of very different sizes, so that every order of summation gives other bits; each rank
// comes at another moment in each repetition.
TEST_F(GroupOrderTest, SumsHaveTheSameBitsEverywhereAndAlways) {
  const std::int64_t part = 30000;
  const std::int64_t numel = part * size_;
  std::vector<float> operands(index(numel));
  std::vector<std::vector<float>> all(index(size_), operands);
  for (int p = 0; p < size_; ++p)
    for (std::int64_t i = 0; i < numel; ++i) {
      const auto words = random_words({7, static_cast<std::uint32_t>(p)}, index(i), 0);
      all[index(p)][index(i)] =
          std::ldexp(uniform(words[0]) - 0.5f, static_cast<int>(words[1] % 24));
    }
  std::vector<float> wanted = all[0];
  for (int p = 1; p < size_; ++p)
    for (std::int64_t i = 0; i < numel; ++i) wanted[index(i)] += all[index(p)][index(i)];

  Tensor staging(*device_, Purpose::communication, DType::f32, {part * (size_ - 1)});
  for (int repetition = 0; repetition < 4; ++repetition) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3 * ((rank_ + repetition) % size_)));
    std::vector<float> reduced = all[index(rank_)];
    group_.all_reduce(view_of(*device_, reduced.data(), {numel}), ReduceOp::sum);
    EXPECT_EQ(std::memcmp(reduced.data(), wanted.data(), index(numel) * sizeof(float)), 0);

    std::vector<float> brief(all[index(rank_)].begin(), all[index(rank_)].begin() + 500);
    group_.all_reduce(view_of(*device_, brief.data(), {500}), ReduceOp::sum);
    EXPECT_EQ(std::memcmp(brief.data(), wanted.data(), 500 * sizeof(float)), 0);

    std::vector<float> scattered = all[index(rank_)];
    group_.reduce_scatter(view_of(*device_, scattered.data(), {numel}), staging);
    EXPECT_EQ(std::memcmp(scattered.data() + rank_ * part, wanted.data() + rank_ * part,
                          index(part) * sizeof(float)),
              0);
  }
}

TEST_F(GroupOrderTest, WireBytesAreRecordedByTheFormulas) {
  Exchange<float> exchange(group_, *device_, 16, uneven);
  device_->profile().reset();
  exchange.start().wait_host();
  std::int64_t rows = 0;
  for (int p = 0; p < size_; ++p) rows += p == rank_ ? 0 : uneven(rank_, p);
  EXPECT_EQ(device_->profile().total_work().wire_bytes, static_cast<double>(rows * 16 * 4));
  std::vector<float> data(index(12 * size_));
  group_.all_gather(view_of(*device_, data.data(), {12 * size_}));
  EXPECT_EQ(device_->profile().total_work().wire_bytes,
            static_cast<double>(rows * 16 * 4 + 12 * 4 * (size_ - 1)));
}

}  // namespace
}  // namespace switchyard
