#include "kernels/host_copy.hpp"

#include <algorithm>
#include <numeric>

#include "kernel_test.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

// The device under test, and beside the card whose tensors lie in the host's memory one whose
// tensors lie in its own.
std::vector<std::unique_ptr<Device>> devices() {
  std::vector<std::unique_ptr<Device>> all;
  all.push_back(make_tested_device());
  if (is_tested_on_card()) all.push_back(make_device(DeviceKind::cuda, 0));
  return all;
}

std::vector<float> counted(std::int64_t count, float first) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(HostCopy, BytesGoAndComeBack) {
  for (const auto& device : devices())
    for (std::int64_t count : {1, 1000, 3000001}) {
      const Tensor tensor(*device, Purpose::workspace, DType::f32, {count});
      const std::vector<float> values = counted(count, 1);
      std::vector<float> back(values.size());
      kernels::copy_from_host<float>(values, tensor);
      kernels::copy_to_host<float>(tensor, back);
      EXPECT_EQ(back, values);
      const kernels::HostContents<float> contents(tensor);
      EXPECT_TRUE(std::ranges::equal(contents.span(), values));
    }
}

TEST(HostCopy, RowsMayLieApart) {
  for (const auto& device : devices()) {
    const Tensor tensor(*device, Purpose::workspace, DType::f32, {5, 40});
    std::vector<float> wanted = counted(5 * 40, 0);
    kernels::copy_from_host<float>(wanted, tensor);
    const TensorView part = tensor->slice_cols(3, 20);
    std::vector<float> rows(5 * 17), wanted_rows;
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (i % 40 >= 3 && i % 40 < 20) wanted_rows.push_back(wanted[i]);
    kernels::copy_to_host<float>(part, rows);
    EXPECT_EQ(rows, wanted_rows);

    kernels::copy_from_host<float>(counted(5 * 17, 1000), part);
    float next = 1000;
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (i % 40 >= 3 && i % 40 < 20) wanted[i] = next++;
    std::vector<float> all(wanted.size());
    kernels::copy_to_host<float>(tensor, all);
    EXPECT_EQ(all, wanted);
  }
}

// What is on the stream is done first, and what comes after sees what the host wrote.
TEST(HostCopy, FollowsTheOrderOfTheStream) {
  for (const auto& device : devices()) {
    constexpr std::int64_t count = 1 << 20;
    const Tensor tensor(*device, Purpose::workspace, DType::f32, {count});
    kernels::write_from_host<float>(
        tensor, [](std::span<float> values) { std::iota(values.begin(), values.end(), 0.0f); });
    for (int i = 0; i < 10; ++i) kernels::scale(tensor, 2);
    std::vector<float> back(count);
    kernels::copy_to_host<float>(tensor, back);
    for (std::size_t i = 0; i < back.size(); ++i)
      ASSERT_EQ(back[i], 1024 * static_cast<float>(i)) << i;
  }
}

}  // namespace
}  // namespace switchyard::test
