#include "experts/balance.hpp"

#include <fmt/core.h>

#include "tensor/error.hpp"

namespace switchyard {

void check_balance_scope(const ExpertsConfig& config) {
  if (config.balance_scope == "sequence") return;
  throw ConfigError(fmt::format("experts.balance_scope: '{}' is not a scope; use sequence",
                                config.balance_scope));
}

}  // namespace switchyard
