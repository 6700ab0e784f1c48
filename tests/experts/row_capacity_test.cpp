#include "experts/row_capacity.hpp"

#include <gtest/gtest.h>

#include <numeric>

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
