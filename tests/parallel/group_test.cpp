// Each collective against its closed form: every operand is a formula of (rank, index).
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "tensor/error.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard {
namespace {

using test::world;

class GroupTest : public ::testing::Test {
 protected:
  Group& group_ = world();
  const int rank_ = world().rank();
  const int size_ = world().size();
  std::unique_ptr<Device> device_ = make_cpu_device();
};

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// Small whole numbers: their sums are exact in f32, in any order.
double operand(int rank, std::int64_t i) {
  return static_cast<double>((i * 7 + rank * 31) % 97 - 40);
}

double expected(ReduceOp op, int size, std::int64_t i) {
  double result = operand(0, i);
  for (int p = 1; p < size; ++p) {
    const double x = operand(p, i);
    result = op == ReduceOp::sum   ? result + x
             : op == ReduceOp::max ? std::max(result, x)
                                   : std::min(result, x);
  }
  return result;
}

template <class T>
void check_all_reduce(Group& group, Device& device, std::int64_t numel, ReduceOp op) {
  std::vector<T> data(index(numel));
  for (std::int64_t i = 0; i < numel; ++i)
    data[index(i)] = static_cast<T>(operand(group.rank(), i));
  group.all_reduce(view_of(device, data.data(), {numel}), op);
  std::int64_t num_wrong = 0;
  for (std::int64_t i = 0; i < numel; ++i)
    num_wrong += data[index(i)] != static_cast<T>(expected(op, group.size(), i));
  EXPECT_EQ(num_wrong, 0) << numel << " elements";
}

// 5000 elements go whole to all ranks (short), 70 001 in one segment with uneven parts, 2 500 000
// in several segments.
TEST_F(GroupTest, AllReduceOfEveryTypeAndOperation) {
  for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    for (std::int64_t numel : {0, 1, 3, 1000, 70001}) {
      check_all_reduce<float>(group_, *device_, numel, op);
      check_all_reduce<double>(group_, *device_, numel, op);
      check_all_reduce<std::int32_t>(group_, *device_, numel, op);
      check_all_reduce<std::int64_t>(group_, *device_, numel, op);
    }
  }
  check_all_reduce<float>(group_, *device_, 2500000, ReduceOp::sum);
}

TEST_F(GroupTest, MaximumOfANanIsNan) {
  for (int nan_rank = 0; nan_rank < size_; ++nan_rank) {
    float x = rank_ == nan_rank ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
    group_.all_reduce(view_of(*device_, &x, {1}), ReduceOp::max);
    EXPECT_TRUE(x != x);
  }
}

TEST_F(GroupTest, ReduceScatterSumsOwnPartAndLeavesTheOthers) {
  for (std::int64_t part : {1, 16, 5000, 400000}) {
    const std::int64_t numel = part * size_;
    Tensor whole(*device_, Purpose::gradient, DType::f32, {numel});
    Tensor staging(*device_, Purpose::communication, DType::f32, {part * (size_ - 1)});
    float* data = whole->as<float>();
    for (std::int64_t i = 0; i < numel; ++i) data[i] = static_cast<float>(operand(rank_, i));
    group_.reduce_scatter(whole, staging);
    std::int64_t num_wrong = 0;
    for (std::int64_t i = 0; i < numel; ++i) {
      const bool own = i / part == rank_;
      const double wanted = own ? expected(ReduceOp::sum, size_, i) : operand(rank_, i);
      num_wrong += data[i] != static_cast<float>(wanted);
    }
    EXPECT_EQ(num_wrong, 0) << "parts of " << part;
  }
}

TEST_F(GroupTest, AllGatherOfEveryElementSize) {
  const std::int64_t part = 1237;
  std::vector<std::int64_t> wide(index(part * size_), -1);
  std::vector<BFloat16> narrow(index(part * size_));
  for (std::int64_t i = 0; i < part; ++i) {
    wide[index(rank_ * part + i)] = rank_ * 1000000 + i;
    narrow[index(rank_ * part + i)] = to_bf16(static_cast<float>(rank_ * 10 + i % 10));
  }
  Event first = group_.start_all_gather(view_of(*device_, wide.data(), {part * size_}));
  Event second = group_.start_all_gather(view_of(*device_, narrow.data(), {size_, part}));
  second.wait_host();
  first.wait_host();
  for (int p = 0; p < size_; ++p) {
    for (std::int64_t i = 0; i < part; ++i) {
      ASSERT_EQ(wide[index(p * part + i)], p * 1000000 + i);
      ASSERT_EQ(to_float(narrow[index(p * part + i)]), static_cast<float>(p * 10 + i % 10));
    }
  }
}

TEST_F(GroupTest, BroadcastFromEveryRoot) {
  for (int root = 0; root < size_; ++root) {
    std::vector<std::int32_t> data(3001);
    for (std::size_t i = 0; i < data.size(); ++i)
      data[i] = rank_ == root ? root * 10000 + static_cast<std::int32_t>(i) : -1;
    group_.broadcast(view_of(*device_, data.data(), {3001}), root);
    for (std::size_t i = 0; i < data.size(); ++i)
      ASSERT_EQ(data[i], root * 10000 + static_cast<std::int32_t>(i));
  }
}

TEST_F(GroupTest, RingStepPassesToTheNeighbour) {
  const int to = (rank_ + 1) % size_;
  const int from = (rank_ + size_ - 1) % size_;
  std::vector<float> sent(777);
  std::vector<float> received(777, -1.0f);
  std::iota(sent.begin(), sent.end(), static_cast<float>(1000 * rank_));
  group_.send_receive(view_of(*device_, sent.data(), {777}), to,
                      view_of(*device_, received.data(), {777}), from);
  for (std::size_t i = 0; i < received.size(); ++i)
    ASSERT_EQ(received[i], static_cast<float>(1000 * from) + static_cast<float>(i));
}

// A chain: the first rank receives nothing, the last one sends nothing.
TEST_F(GroupTest, SendReceiveWithAnEmptySide) {
  const int to = (rank_ + 1) % size_;
  const int from = (rank_ + size_ - 1) % size_;
  std::int64_t sent = 100 + rank_;
  std::int64_t received = -1;
  const TensorView nothing;
  group_.send_receive(rank_ + 1 < size_ ? view_of(*device_, &sent, {1}) : nothing, to,
                      rank_ > 0 ? view_of(*device_, &received, {1}) : nothing, from);
  EXPECT_EQ(received, rank_ > 0 ? 100 + rank_ - 1 : -1);
}

TEST_F(GroupTest, SmallHostValues) {
  const std::vector<std::int64_t> mine = {rank_ * 10, rank_ * 10 + 1};
  std::vector<std::int64_t> all(index(2 * size_), -1);
  group_.all_gather_values(mine, all);
  for (int p = 0; p < size_; ++p) {
    EXPECT_EQ(all[index(2 * p)], p * 10);
    EXPECT_EQ(all[index(2 * p + 1)], p * 10 + 1);
  }
  std::vector<double> values = {operand(rank_, 0), operand(rank_, 1)};
  group_.all_reduce_values(values, ReduceOp::sum);
  EXPECT_EQ(values[0], expected(ReduceOp::sum, size_, 0));
  EXPECT_EQ(values[1], expected(ReduceOp::sum, size_, 1));
  double largest = rank_;
  group_.all_reduce_values({&largest, 1}, ReduceOp::max);
  EXPECT_EQ(largest, size_ - 1);
  std::vector<std::int64_t> counts(5000);
  for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    for (std::size_t i = 0; i < counts.size(); ++i)
      counts[i] = static_cast<std::int64_t>(operand(rank_, static_cast<std::int64_t>(i)));
    group_.all_reduce_values(counts, op);
    for (std::size_t i = 0; i < counts.size(); ++i)
      ASSERT_EQ(static_cast<double>(counts[i]), expected(op, size_, static_cast<std::int64_t>(i)));
  }
  std::string text = rank_ == size_ - 1 ? "the text of the last rank" : "other";
  group_.broadcast_text(text, size_ - 1);
  EXPECT_EQ(text, "the text of the last rank");
  group_.broadcast_text(text = rank_ == 0 ? "" : "not empty", 0);
  EXPECT_EQ(text, "");
}

TEST_F(GroupTest, WrongOperandsAreRefused) {
  Tensor matrix(*device_, Purpose::workspace, DType::f32, {4, 8 * size_});
  const TensorView strided = matrix->slice_cols(0, 4);
  EXPECT_THROW(group_.start_all_gather(strided), InternalError);
  const std::vector<std::int64_t> too_few(index(size_), 0);
  EXPECT_THROW(group_.start_all_to_all_v(matrix, too_few, matrix, too_few), InternalError);
  const std::vector<std::int64_t> one_rank_more(index(size_ + 1), 0);
  EXPECT_THROW(group_.start_all_to_all_v({}, one_rank_more, {}, one_rank_more), InternalError);
  const std::unique_ptr<Device> plan = make_plan_device();
  Tensor planned(*plan, Purpose::workspace, DType::f32, {4 * size_});
  EXPECT_THROW(group_.start_all_gather(planned), InternalError);
  if (size_ > 1) {
    Tensor bytes(*device_, Purpose::workspace, DType::u8, {size_});
    EXPECT_THROW(group_.start_all_reduce(bytes, ReduceOp::sum), InternalError);
    Tensor odd(*device_, Purpose::workspace, DType::f32, {size_ + 1});
    EXPECT_THROW(group_.start_all_gather(odd), InternalError);
    EXPECT_THROW(group_.start_reduce_scatter(odd, matrix->flat()), InternalError);
  }
}

}  // namespace
}  // namespace switchyard
