#include "tensor/tensor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(Tensor, StartsAsZerosAndIsCounted) {
  const auto device = make_cpu_device();
  {
    const Tensor tensor(*device, Purpose::gradient, DType::f32, {3, 5});
    for (float value : tensor->span<float>()) EXPECT_EQ(value, 0);
    EXPECT_EQ(tensor->num_bytes(), 60);
    EXPECT_EQ(device->memory().live(Purpose::gradient), 64);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor->data) % 64, 0u);
  }
  EXPECT_EQ(device->memory().live_total(), 0);
  EXPECT_EQ(device->memory().peak_total(), 64);
}

TEST(Tensor, GrowingKeepsAddressAndContents) {
  const auto device = make_cpu_device();
  Tensor tensor = Tensor::growable(*device, Purpose::activation, DType::i32, {1 << 20, 3});
  EXPECT_EQ(tensor->rows(), 0);
  EXPECT_EQ(device->memory().live_total(), 0);
  tensor.grow_rows(2);
  const std::byte* address = tensor->data;
  std::iota(tensor->span<std::int32_t>().begin(), tensor->span<std::int32_t>().end(), 1);
  tensor.grow_rows(100000);  // many pages more
  EXPECT_EQ(tensor->data, address);
  const auto values = tensor->span<std::int32_t>();
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(values[i], static_cast<std::int32_t>(i) + 1);
  EXPECT_TRUE(std::all_of(values.begin() + 6, values.end(), [](std::int32_t v) { return v == 0; }));
  EXPECT_EQ(device->memory().live(Purpose::activation), MemoryLedger::rounded(100000 * 12));
  tensor.grow_rows(5);  // never shrinks
  EXPECT_EQ(tensor->rows(), 100000);
  EXPECT_THROW(tensor.grow_rows((1 << 20) + 1), InternalError);
}

TEST(Tensor, MovesLeaveNothingBehind) {
  const auto device = make_cpu_device();
  Tensor first(*device, Purpose::parameter, DType::f32, {16});
  Tensor second(*device, Purpose::optimizer, DType::f32, {32});
  first->span<float>()[3] = 4;
  second = std::move(first);
  EXPECT_EQ(device->memory().live(Purpose::optimizer), 0);
  EXPECT_EQ(device->memory().live(Purpose::parameter), 64);
  EXPECT_EQ(second->span<float>()[3], 4);
  const Tensor third = std::move(second);
  EXPECT_EQ(third->span<float>()[3], 4);
  EXPECT_EQ(device->memory().live_total(), 64);
}

TEST(TensorView, SlicesShareMemory) {
  const auto device = make_cpu_device();
  const Tensor tensor(*device, Purpose::workspace, DType::f32, {4, 6});
  std::iota(tensor->span<float>().begin(), tensor->span<float>().end(), 0.0f);
  const TensorView middle = tensor->slice_rows(1, 3).slice_cols(2, 5);
  EXPECT_EQ(middle.shape, (Shape{2, 3}));
  EXPECT_FALSE(middle.is_contiguous());
  EXPECT_EQ(middle.row<float>(0)[0], 8);
  EXPECT_EQ(middle.row<float>(1)[2], 16);
  EXPECT_TRUE(tensor->slice_rows(1, 3).is_contiguous());
  EXPECT_TRUE(middle.slice_rows(0, 1).is_contiguous());
  EXPECT_EQ(tensor->operator[](2).as<float>()[1], 13);
  const TensorView cube = tensor->reshape({2, 2, 6});
  EXPECT_EQ(cube[1].shape, (Shape{2, 6}));
  EXPECT_EQ(cube[1][1].as<float>()[5], 23);
  EXPECT_EQ(tensor->flat().shape, Shape{24});
}

TEST(TensorView, RefusesWrongAccess) {
  const auto device = make_cpu_device();
  const Tensor tensor(*device, Purpose::workspace, DType::f32, {4, 6});
  EXPECT_THROW(static_cast<void>(tensor->as<double>()), InternalError);
  EXPECT_THROW(static_cast<void>(tensor->slice_rows(2, 5)), InternalError);
  EXPECT_THROW(static_cast<void>(tensor->slice_cols(-1, 5)), InternalError);
  EXPECT_THROW(static_cast<void>(tensor->slice_cols(1, 2).span<float>()), InternalError);
  EXPECT_THROW(static_cast<void>(tensor->reshape({5, 5})), InternalError);
  EXPECT_THROW(static_cast<void>(TensorView{}.as<float>()), InternalError);
  EXPECT_TRUE(TensorView{}.empty());
}

TEST(TensorView, BorrowsHostMemory) {
  const auto device = make_cpu_device();
  std::array<std::int64_t, 6> values = {1, 2, 3, 4, 5, 6};
  const TensorView view = view_of(*device, values.data(), {3, 2});
  EXPECT_EQ(view.row<std::int64_t>(2)[1], 6);
  EXPECT_EQ(device->memory().live_total(), 0);
}

// The plan device counts what a real one would and owns no memory: 2^50 bytes are no trouble.
TEST(PlanDevice, CountsLikeTheCpuAndHasNoMemory) {
  const auto plan = make_plan_device();
  Tensor tensor =
      Tensor::growable(*plan, Purpose::activation, DType::bf16, {std::int64_t{1} << 40, 512});
  tensor.grow_rows(std::int64_t{1} << 40);
  EXPECT_EQ(plan->memory().live(Purpose::activation), std::int64_t{1} << 50);
  EXPECT_TRUE(plan->is_plan());
  EXPECT_EQ(tensor->slice_rows(5, 9).data, nullptr);
  EXPECT_THROW(static_cast<void>(tensor->as<BFloat16>()), InternalError);
}

TEST(PlanDevice, RefusesWhatFitsNoMachine) {
  const std::unique_ptr<Device> plan = make_plan_device();
  EXPECT_THROW(Tensor(*plan, Purpose::activation, DType::f32, {std::int64_t{1} << 60}),
               MemoryError);
  EXPECT_EQ(plan->memory().live_total(), 0);
}

TEST(CpuDevice, ARefusedReservationNamesTheBytes) {
  const auto device = make_cpu_device();
  try {
    const Tensor tensor(*device, Purpose::workspace, DType::u8, {std::int64_t{1} << 60});
    FAIL() << "the system granted 2^60 bytes";
  } catch (const MemoryError& error) {
    EXPECT_NE(std::string_view(error.what()).find("1152921504606846976"), std::string_view::npos);
    EXPECT_EQ(error.code(), ExitCode::memory);
  }
  EXPECT_EQ(device->memory().live_total(), 0);
}

}  // namespace
}  // namespace switchyard
