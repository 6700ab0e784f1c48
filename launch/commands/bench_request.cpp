#include "launch/commands/bench_request.hpp"

#include <fmt/format.h>

#include <charconv>

namespace switchyard {

void refuse_arguments(const std::string& name, const BenchRequest& request) {
  if (!request.arguments.empty())
    throw UsageError("bench",
                     fmt::format("bench {} takes no argument {}", name, request.arguments.front()));
}

std::vector<DType> precisions_of(const BenchRequest& request) {
  if (!request.precision) return {DType::f32, DType::bf16};
  return {*request.precision == Precision::fp32 ? DType::f32 : DType::bf16};
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts{""};
  for (const char letter : text) {
    if (letter == separator)
      parts.emplace_back();
    else
      parts.back() += letter;
  }
  return parts;
}

std::int64_t positive_number(const std::string& text, std::int64_t most) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end && value >= 1 && value <= most ? value : 0;
}

std::vector<std::vector<std::int64_t>> numbers_of_sizes(const std::string& sizes,
                                                        std::size_t num_members,
                                                        std::string_view form) {
  constexpr std::int64_t most = std::int64_t{1} << 30;
  std::vector<std::vector<std::int64_t>> all;
  for (const std::string& size : split(sizes, ',')) {
    std::vector<std::int64_t>& numbers = all.emplace_back();
    for (const std::string& text : split(size, 'x')) numbers.push_back(positive_number(text, most));
    if (numbers.size() != num_members || std::ranges::count(numbers, 0) > 0)
      throw UsageError("bench", fmt::format("--sizes {}: expected {}, of numbers from 1 to {}, and "
                                            "commas between several",
                                            size.empty() ? "''" : size, form, most));
  }
  return all;
}

}  // namespace switchyard
