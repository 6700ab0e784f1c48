#include "experts/row_capacity.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "experts/route.hpp"

namespace switchyard {
namespace {

TEST(RowCapacity, grows_every_buffer_in_place_and_never_shrinks) {
  const std::unique_ptr<Device> device = make_cpu_device();
  Tensor first = Tensor::growable(*device, Purpose::activation, DType::f32, {100, 3});
  Tensor second = Tensor::growable(*device, Purpose::activation, DType::i32, {100});
  RowCapacity capacity;
  capacity.add(first);
  capacity.require(4);
  ASSERT_EQ(first->rows(), 4);
  std::iota(first->as<float>(), first->as<float>() + 12, 0.0f);
  const float* address = first->as<float>();

  capacity.add(second);  // a late one gets what the others have
  EXPECT_EQ(second->rows(), 4);
  capacity.require(50);
  EXPECT_EQ(first->rows(), 50);
  EXPECT_EQ(second->rows(), 50);
  EXPECT_EQ(first->as<float>(), address);
  for (int i = 0; i < 12; ++i) EXPECT_EQ(first->as<float>()[i], static_cast<float>(i));
  capacity.require(7);
  EXPECT_EQ(capacity.rows(), 50);
  EXPECT_EQ(first->rows(), 50);
}

TEST(RowCapacity, a_buffer_of_a_part_stays_within_it) {
  const std::unique_ptr<Device> device = make_cpu_device();
  Tensor all = Tensor::growable(*device, Purpose::activation, DType::f32, {100, 3});
  Tensor part = Tensor::growable(*device, Purpose::activation, DType::f32, {10, 3});
  RowCapacity capacity;
  capacity.add(all);
  capacity.add(part);
  capacity.require(50);
  EXPECT_EQ(all->rows(), 50);
  EXPECT_EQ(part->rows(), 10);
  EXPECT_EQ(capacity.rows(), 50);
}

TEST(RowCuts, are_where_groups_begin_or_at_steps_in_them) {
  const auto cuts = [](std::vector<std::int64_t> offsets, std::int64_t most_rows) {
    return cut_rows(offsets, most_rows, 4);
  };
  using Cuts = std::vector<std::int64_t>;
  EXPECT_EQ(cuts({0, 0}, 8), Cuts({0, 0}));
  EXPECT_EQ(cuts({0, 3, 8}, 8), Cuts({0, 8}));
  EXPECT_EQ(cuts({0, 9}, 8), Cuts({0, 8, 9}));
  EXPECT_EQ(cuts({0, 3, 3, 20}, 8), Cuts({0, 7, 15, 20}));  // 3 + 4, then 3 + 12
  EXPECT_EQ(cuts({0, 5, 8, 8, 11}, 9), Cuts({0, 8, 11}));   // before the group that would not fit
  for (std::int64_t last = 0; last < 60; ++last) {
    const std::vector<std::int64_t> offsets{0, last / 7, last / 2, last};
    const Cuts found = cut_rows(offsets, 11, 5);
    ASSERT_EQ(found.back(), last);
    for (std::size_t i = 1; i < found.size(); ++i) {
      EXPECT_LE(found[i] - found[i - 1], 11);
      if (i + 1 < found.size()) {
        EXPECT_GE(found[i] - found[i - 1], 11 - 5);
      }
    }
  }
}

TEST(RowCapacity, a_planned_figure_stays) {
  const std::unique_ptr<Device> device = make_plan_device();
  Tensor buffer = Tensor::growable(*device, Purpose::activation, DType::f32, {100, 16});
  RowCapacity capacity(20);
  capacity.add(buffer);
  capacity.require(30);
  EXPECT_TRUE(capacity.is_planned());
  EXPECT_EQ(capacity.rows(), 20);
  EXPECT_EQ(buffer->rows(), 20);
  EXPECT_EQ(device->memory().live(Purpose::activation), 20 * 16 * 4);
}

}  // namespace
}  // namespace switchyard
