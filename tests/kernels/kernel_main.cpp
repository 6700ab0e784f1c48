// The tests' common parts, and a main() that limits the instruction set as the program does.
#include <fmt/core.h>

#include <cmath>

#include "kernel_test.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/isa.hpp"
#include "kernels/threads.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

namespace {

constexpr double mark = 77;  // in gaps; exact in both types

void put(const TensorView& view, std::int64_t r, std::int64_t c, double value) {
  if (view.dtype == DType::f32) view.row<float>(r)[c] = static_cast<float>(value);
  if (view.dtype == DType::bf16) view.row<BFloat16>(r)[c] = to_bf16(static_cast<float>(value));
}

double get(const TensorView& view, std::int64_t r, std::int64_t c) {
  return view.dtype == DType::f32 ? static_cast<double>(view.row<float>(r)[c])
                                  : static_cast<double>(to_float(view.row<BFloat16>(r)[c]));
}

}  // namespace

Device& tested() {
  static const std::unique_ptr<Device> device = make_tested_device();
  return *device;
}

Operand::Operand(DType dtype, std::int64_t rows, std::int64_t cols, unsigned seed, std::int64_t gap)
    : owner_(tested(), Purpose::workspace, dtype, {rows, cols + 2 * gap}), gap_(gap) {
  view_ = owner_.view().slice_cols(gap, gap + cols);
  std::mt19937 generator(seed);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols + 2 * gap; ++c) {
      const double value = static_cast<double>(generator()) * 0x1p-30 - 2;
      put(owner_, r, c, c < gap || c >= gap + cols ? mark : value);
    }
}

Operand Operand::of_ints(const std::vector<std::int32_t>& values, std::int64_t cols) {
  Operand operand(DType::i32, static_cast<std::int64_t>(values.size()) / cols, cols);
  if (!values.empty())
    std::copy(values.begin(), values.end(), operand.view_.span<std::int32_t>().begin());
  return operand;
}

void Operand::set(const Doubles& values) const {
  for (std::int64_t r = 0; r < view_.rows(); ++r)
    for (std::int64_t c = 0; c < view_.cols(); ++c)
      put(view_, r, c, values[static_cast<std::size_t>(r * view_.cols() + c)]);
}

void Operand::scale_by(double factor) {
  Doubles scaled = values();
  for (double& value : scaled) value *= factor;
  set(scaled);
}

Doubles Operand::values() const {
  Doubles result;
  for (std::int64_t r = 0; r < view_.rows(); ++r)
    for (std::int64_t c = 0; c < view_.cols(); ++c) result.push_back(get(view_, r, c));
  return result;
}

std::vector<std::int32_t> Operand::ints() const {
  if (view_.empty()) return {};
  const auto span = view_.span<std::int32_t>();
  return {span.begin(), span.end()};
}

bool Operand::gaps_untouched() const {
  for (std::int64_t r = 0; r < owner_->rows(); ++r)
    for (std::int64_t g = 0; g < gap_; ++g)
      if (get(owner_, r, g) != mark || get(owner_, r, owner_->cols() - 1 - g) != mark) return false;
  return true;
}

void expect_close(const Operand& actual, const Doubles& expected, double tolerance) {
  const Doubles values = actual.values();
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_NEAR(values[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << "element " << i;
  EXPECT_TRUE(actual.gaps_untouched());
}

void expect_refused(const std::function<void()>& call) {
  if (!is_tested_on_card()) {
    EXPECT_THROW(call(), InternalError);
    return;
  }
  constexpr int refused = 3;
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a new process, since a fork has no card
  EXPECT_EXIT(
      {
        try {
          call();
        } catch (const InternalError&) {
          std::_Exit(refused);
        }
      },
      testing::ExitedWithCode(refused), "");
}

void expect_same_for_any_threads(const std::function<std::vector<Doubles>()>& run) {
  const int before = kernels::num_threads();
  kernels::set_num_threads(1);
  const std::vector<Doubles> alone = run();
  kernels::set_num_threads(2);
  const std::vector<Doubles> shared = run();
  kernels::set_num_threads(3);
  const std::vector<Doubles> odd = run();
  kernels::set_num_threads(before);
  EXPECT_EQ(alone, shared);
  EXPECT_EQ(alone, odd);
}

void for_each_case(const std::function<void(const Case&)>& body) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (std::int64_t rows : {0, 1, 3})
      for (std::int64_t cols : {1, 7, 65, 130})
        for (std::int64_t gap : {0, 3}) {
          SCOPED_TRACE(fmt::format("{} [{}, {}] gap {}", name_of(dtype), rows, cols, gap));
          body({dtype, rows, cols, gap});
        }
}

}  // namespace switchyard::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  switchyard::test::choose_tested_device();
  switchyard::kernels::limit_isa_from_environment();
  fmt::print("instruction set {}, loops on {}\n",
             switchyard::kernels::name_of(switchyard::kernels::active_isa()),
             switchyard::kernels::cpu::loop_target());
  return RUN_ALL_TESTS();
}
