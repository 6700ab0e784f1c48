#include "tensor/choice.hpp"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

enum class Fruit : std::uint8_t { apple, pear };
constexpr std::array<std::string_view, 2> choice_names(Fruit) {
  return {"apple", "pear"};
}
enum class Nameless : std::uint8_t { one };

TEST(Choice, HasItsNameAndIsFoundByIt) {
  EXPECT_EQ(name_of(Fruit::pear), "pear");
  EXPECT_EQ(choice_of<Fruit>("apple"), Fruit::apple);
  EXPECT_EQ(choice_of<Fruit>("pear"), Fruit::pear);
  for (const std::string_view wrong : {"", "Pear", "pears", "plum"})
    EXPECT_EQ(choice_of<Fruit>(wrong), std::nullopt) << wrong;
  static_assert(Choice<Fruit> && !Choice<Nameless> && !Choice<int>);
}

}  // namespace
}  // namespace switchyard
