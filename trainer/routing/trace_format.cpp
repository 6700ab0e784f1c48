#include "trainer/routing/trace_format.hpp"

#include <fmt/core.h>

#include <charconv>

namespace switchyard::trace_format {

std::string rank_file(int rank) {
  return fmt::format("rank-{}.h5", rank);
}

std::string folder_of(std::int64_t first_step, std::int64_t last_step) {
  return fmt::format("steps-{}-{}", first_step, last_step);
}

std::string dataset(std::int64_t step, const std::string& name) {
  return fmt::format("step-{}/{}", step, name);
}

std::int64_t first_step_of(const std::string& folder_name) {
  constexpr std::string_view begin = "steps-";
  if (!folder_name.starts_with(begin)) return 0;
  std::int64_t step = 0;
  const char* const end = folder_name.data() + folder_name.size();
  const auto [rest, error] = std::from_chars(folder_name.data() + begin.size(), end, step);
  return error == std::errc() && rest != end && *rest == '-' ? step : 0;
}

}  // namespace switchyard::trace_format
