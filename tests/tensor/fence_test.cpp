// The fence that holds the border to the host (tests/support/fenced_device.hpp) is one: what it did
// not stop would go unseen.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "tensor/error.hpp"
#include "tensor/tensor.hpp"
#include "tests/support/fenced_device.hpp"

namespace switchyard::test {
namespace {

TEST(FenceDeathTest, AHostAccessEndsWithItsPlace) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto device = make_fenced_device();
  const Tensor tensor(*device, Purpose::workspace, DType::f32, {4});
  EXPECT_EXIT(std::fprintf(stderr, "%f", *reinterpret_cast<const volatile float*>(tensor->data)),
              ::testing::KilledBySignal(SIGSEGV), "host access to fenced memory");
}

TEST(FenceTest, TheHostIsRefusedAndASystemCallFails) {
  const auto device = make_fenced_device();
  const Tensor tensor(*device, Purpose::workspace, DType::f32, {4});
  EXPECT_THROW(tensor->host<float>(), InternalError);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  EXPECT_EQ(::write(pipe[1], tensor->data, 4), -1);
  EXPECT_EQ(errno, EFAULT);
  for (const int end : pipe) ::close(end);
}

TEST(FenceTest, KernelsUseOtherAddressesOfZeros) {
  const auto device = make_fenced_device();
  Tensor tensor = Tensor::growable(*device, Purpose::workspace, DType::i32, {1 << 20, 4});
  tensor.grow_rows(3);
  tensor->as<std::int32_t>()[11] = 7;
  tensor.grow_rows(1 << 19);
  EXPECT_EQ(tensor->as<std::int32_t>()[11], 7);
  EXPECT_EQ(tensor->as<std::int32_t>()[12], 0);
  EXPECT_EQ(device->memory().live_total(), (1 << 19) * 16);
}

}  // namespace
}  // namespace switchyard::test
