#include "experts/balance.hpp"

#include <gtest/gtest.h>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(BalanceScope, an_unknown_one_is_a_configuration_error) {
  ExpertsConfig config;
  EXPECT_NO_THROW(check_balance_scope(config));
  config.balance_scope = "galaxy";
  try {
    check_balance_scope(config);
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "experts.balance_scope: 'galaxy' is not a scope; use sequence");
  }
}

}  // namespace
}  // namespace switchyard
