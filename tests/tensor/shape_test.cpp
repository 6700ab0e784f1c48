#include "tensor/shape.hpp"

#include <gtest/gtest.h>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(Shape, CountsElements) {
  EXPECT_EQ((Shape{3, 4, 5}).numel(), 60);
  EXPECT_EQ((Shape{3, 4, 5}).inner_numel(), 20);
  EXPECT_EQ((Shape{0, 4}).numel(), 0);
  EXPECT_EQ((Shape{0, 4}).inner_numel(), 4);
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ(Shape{7}.inner_numel(), 1);
}

TEST(Shape, ComparesAndPrints) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 1}));
  EXPECT_EQ((Shape{8, 512}).to_string(), "[8, 512]");
  EXPECT_EQ((Shape{8, 512}).with_dim0(3), (Shape{3, 512}));
}

TEST(Shape, RefusesWhatIsNoShape) {
  EXPECT_THROW((Shape{1, -1}), InternalError);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1}), InternalError);
  EXPECT_THROW(Shape{}.with_dim0(1), InternalError);
}

// Sizes come from configurations: too large a one is told to the user, with what to change.
TEST(Shape, RefusesWhatFitsNoMachine) {
  try {
    static_cast<void>((Shape{std::int64_t{1} << 40, std::int64_t{1} << 40}).numel());
    FAIL() << "2^80 elements";
  } catch (const MemoryError& error) {
    EXPECT_EQ(error.code(), ExitCode::memory);
    EXPECT_NE(std::string(error.what()).find("[1099511627776, 1099511627776]"), std::string::npos);
  }
}

}  // namespace
}  // namespace switchyard
