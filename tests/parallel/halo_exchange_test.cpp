// Rows brought from other ranks, and their gradients brought home: every value by its position,
// with shares that are uneven, in two segments, and empty.
#include "parallel/context/halo_exchange.hpp"

#include <gtest/gtest.h>

#include "kernels/attention/key_ranges.hpp"
#include "tensor/error.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard {
namespace {

using test::world;
using Held = std::vector<std::vector<PositionRange>>;

constexpr std::int64_t num_sequences = 2;
constexpr std::int64_t length = 13;

// Of `size` ranks: the first has both ends, the second nothing where others have the rest.
Held uneven_shares(int size) {
  switch (size) {
    case 1:
      return {{{0, 13}}};
    case 2:
      return {{{0, 2}, {9, 4}}, {{2, 7}}};
    case 3:
      return {{{0, 2}, {12, 1}}, {}, {{2, 10}}};
    default:
      return {{{0, 2}, {12, 1}}, {}, {{2, 1}, {8, 4}}, {{3, 5}}};
  }
}

// What a causal window or convolution of that width reads.
Held read_by(const Held& held, std::int64_t width) {
  Held read;
  for (const std::vector<PositionRange>& positions : held)
    read.push_back(kernels::seen_positions(positions, width));
  return read;
}

std::vector<std::int64_t> positions_of(const std::vector<PositionRange>& ranges) {
  std::vector<std::int64_t> positions;
  for (const PositionRange& range : ranges)
    for (std::int64_t p = range.begin; p < range.end(); ++p) positions.push_back(p);
  return positions;
}

// Small whole numbers, which bf16 holds exactly.
double value_at(std::int64_t sequence, std::int64_t position, std::int64_t col) {
  return static_cast<double>(100 * sequence + 7 * position + col);
}

void set(const TensorView& x, std::int64_t row, std::int64_t col, double value) {
  const std::int64_t at = row * x.row_stride + col;
  if (x.dtype == DType::f32)
    x.as<float>()[at] = static_cast<float>(value);
  else
    x.as<BFloat16>()[at] = to_bf16(static_cast<float>(value));
}

double get(const TensorView& x, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * x.row_stride + col;
  return x.dtype == DType::f32 ? static_cast<double>(x.as<float>()[at])
                               : static_cast<double>(to_float(x.as<BFloat16>()[at]));
}

class HaloExchangeTest : public ::testing::TestWithParam<std::int64_t> {
 protected:
  HaloExchangeTest()
      : held_(uneven_shares(world().size())),
        read_(read_by(held_, GetParam())),
        progress_(Progress::poll, device_->compute_stream()),
        exchange_(world(), held_, read_, num_sequences, progress_),
        own_(positions_of(held_[rank()])),
        gathered_(positions_of(read_[rank()])) {}

  static std::size_t rank() { return static_cast<std::size_t>(world().rank()); }
  static std::int64_t rows_of(const std::vector<std::int64_t>& positions) {
    return num_sequences * std::ssize(positions);
  }
  Tensor make(DType dtype, std::int64_t rows, std::int64_t cols) const {
    return {*device_, Purpose::workspace, dtype, {rows, cols}};
  }
  HaloMessages messages(std::int64_t row_bytes) const {
    const std::int64_t most = std::max(exchange_.num_given(), exchange_.num_taken());
    return {Tensor(*device_, Purpose::communication, DType::u8, {most * row_bytes}),
            Tensor(*device_, Purpose::communication, DType::u8, {most * row_bytes})};
  }

  std::unique_ptr<Device> device_ = test::make_tested_device();
  Held held_, read_;
  ExchangeProgress progress_;
  HaloExchange exchange_;
  std::vector<std::int64_t> own_, gathered_;
};

TEST_P(HaloExchangeTest, EveryRankGetsTheRowsThatItReads) {
  EXPECT_EQ(positions_of(exchange_.positions()), gathered_);
  EXPECT_EQ(exchange_.num_gathered(), rows_of(gathered_));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    // Two tensors beside each other, the second strided.
    const Tensor first = make(dtype, rows_of(own_), 3), wide = make(dtype, rows_of(own_), 6);
    const TensorView second = wide->slice_cols(1, 3);
    const auto n = std::ssize(own_);
    for (std::int64_t row = 0; row < rows_of(own_); ++row)
      for (std::int64_t col = 0; col < 5; ++col)
        set(col < 3 ? first.view() : second, row, col < 3 ? col : col - 3,
            value_at(row / n, own_[static_cast<std::size_t>(row % n)], col));
    const Tensor gathered = make(dtype, rows_of(gathered_), 5);
    const std::vector<TensorView> parts = {first, second};
    exchange_.gather(parts, gathered, messages(5 * size_of(dtype)));
    const auto m = std::ssize(gathered_);
    for (std::int64_t row = 0; row < rows_of(gathered_); ++row)
      for (std::int64_t col = 0; col < 5; ++col)
        ASSERT_EQ(get(gathered, row, col),
                  value_at(row / m, gathered_[static_cast<std::size_t>(row % m)], col))
            << name_of(dtype) << " row " << row << " column " << col;
  }
}

// The adjoint: a row's gradient is the sum of what all who read it have for it.
TEST_P(HaloExchangeTest, GradientsComeHomeToTheirOwners) {
  constexpr std::int64_t cols = 3;
  const auto gradient_of = [](std::size_t reader, std::int64_t sequence, std::int64_t position,
                              std::int64_t col) {
    return static_cast<double>(1 + reader) * (value_at(sequence, position, col) + 1);
  };
  const Tensor gathered = make(DType::f32, rows_of(gathered_), cols);
  const auto m = std::ssize(gathered_);
  for (std::int64_t row = 0; row < rows_of(gathered_); ++row)
    for (std::int64_t col = 0; col < cols; ++col)
      set(gathered, row, col,
          gradient_of(rank(), row / m, gathered_[static_cast<std::size_t>(row % m)], col));
  exchange_.bring_home(gathered, messages(cols * size_of(DType::f32)));
  const Tensor own = make(DType::bf16, rows_of(own_), cols);
  const Tensor exact = make(DType::f32, rows_of(own_), cols);
  exchange_.take_own(gathered, exact);
  exchange_.take_own(gathered, own);
  const auto n = std::ssize(own_);
  for (std::int64_t row = 0; row < rows_of(own_); ++row)
    for (std::int64_t col = 0; col < cols; ++col) {
      const std::int64_t position = own_[static_cast<std::size_t>(row % n)];
      double expected = 0;
      for (std::size_t reader = 0; reader < read_.size(); ++reader)
        for (const std::int64_t seen : positions_of(read_[reader]))
          if (seen == position) expected += gradient_of(reader, row / n, position, col);
      ASSERT_EQ(get(exact, row, col), expected) << "row " << row << " column " << col;
      ASSERT_NEAR(get(own, row, col), expected, expected * 0x1p-8);
    }
}

// 1: nothing is read of others. 0: everything that lies before.
INSTANTIATE_TEST_SUITE_P(Widths, HaloExchangeTest, ::testing::Values(1, 2, 4, 6, 0));

TEST(HaloExchangeErrorTest, PositionsThatNobodyHoldsAreRefused) {
  const auto device = test::make_tested_device();
  ExchangeProgress progress(Progress::poll, device->compute_stream());
  Held held = uneven_shares(world().size()), read = held;
  read[static_cast<std::size_t>(world().rank())].push_back({length, 2});
  EXPECT_THROW(HaloExchange(world(), held, read, 1, progress), InternalError);
}

}  // namespace
}  // namespace switchyard
