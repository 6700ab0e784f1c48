#include "tensor/error.hpp"

#include <gtest/gtest.h>

#include <string>

namespace switchyard {
namespace {

void multiply_negative() {
  expect(false, "a positive factor");
}

TEST(Error, ExpectNamesTheCaller) {
  try {
    multiply_negative();
    FAIL() << "expect(false) must throw";
  } catch (const InternalError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("error_test.cpp:11: in multiply_negative: expected a positive factor"),
              std::string::npos)
        << message;
    EXPECT_EQ(error.code(), ExitCode::internal);
  }
  EXPECT_NO_THROW(expect(true, "anything"));
}

}  // namespace
}  // namespace switchyard
