#include "tensor/error.hpp"

#include <fmt/core.h>

namespace switchyard {

void expect(bool condition, std::string_view what, CodeLocation where) {
  if (condition) return;
  throw InternalError(
      fmt::format("{}:{}: in {}: expected {}", where.file, where.line, where.function, what));
}

}  // namespace switchyard
