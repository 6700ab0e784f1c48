#include "tensor/error.hpp"

#include <fmt/format.h>

namespace switchyard {

void expect(bool condition, std::string_view what, std::source_location where) {
  if (condition) return;
  throw InternalError(fmt::format("{}:{}: in {}: expected {}", where.file_name(), where.line(),
                                  where.function_name(), what));
}

}  // namespace switchyard
