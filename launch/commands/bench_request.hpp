// What is asked of a benchmark, and how its texts become sizes. UsageError for what is none.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "bench/report.hpp"
#include "launch/commands/bench_machine.hpp"
#include "launch/options.hpp"
#include "parallel/context/sequence_split.hpp"
#include "parallel/group/exchange_progress.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// What the command line says, whatever the benchmark.
struct BenchRequest {
  std::vector<std::string> arguments;  // behind the benchmark's name
  std::optional<Precision> precision;  // none: both
  std::string sizes;                   // empty: the benchmark's own
  bench::Repeats repeats;
  bool disturb = false;         // of bench step alone
  BenchMachineOptions machine;  // of bench machine alone
  // Of bench ring, and some of bench mixer; not given: the benchmark's own.
  std::optional<std::string> lengths, scheme;
  std::optional<SequenceLayout> layout;
  std::optional<Progress> progress;
  std::optional<std::int64_t> window, heads, kv_heads, head_dim;
  std::string trace;  // of bench dispatch alone
  // Of bench mixer alone.
  std::optional<std::string> kinds;
  std::optional<std::int64_t> chunk;
};

void refuse_arguments(const std::string& name, const BenchRequest& request);
std::vector<DType> precisions_of(const BenchRequest& request);
std::vector<std::string> split(const std::string& text, char separator);
// A whole number from 1 to `most`; 0: the text is none.
std::int64_t positive_number(const std::string& text, std::int64_t most);

// Puts "256x2048x512,1024x512x1024", if it is given, in the place of a benchmark's own sizes: each
// of N positive numbers, the members of a Size in their order; `form` names them: "ROWSxOUTxIN".
template <std::size_t N, class Size>
void replace_sizes(std::vector<Size>& sizes, const BenchRequest& request, std::string_view form) {
  if (request.sizes.empty()) return;
  sizes.clear();
  constexpr std::int64_t most = std::int64_t{1} << 30;
  for (const std::string& size : split(request.sizes, ',')) {
    const std::vector<std::string> numbers = split(size, 'x');
    bool is_right = numbers.size() == N;
    std::array<std::int64_t, N> values{};
    for (std::size_t i = 0; is_right && i < N; ++i) {
      values[i] = positive_number(numbers[i], most);
      is_right = values[i] > 0;
    }
    if (!is_right)
      throw UsageError("bench", fmt::format("--sizes {}: expected {}, of numbers from 1 to {}, and "
                                            "commas between several",
                                            size.empty() ? "''" : size, form, most));
    sizes.push_back(std::apply([](auto... each) { return Size{each...}; }, values));
  }
}

// Of a benchmark that takes precisions and sizes.
template <class BenchmarkOptions, std::size_t N>
BenchmarkOptions options_of(const std::string& name, const BenchRequest& request,
                            std::string_view form) {
  refuse_arguments(name, request);
  BenchmarkOptions options;
  options.precisions = precisions_of(request);
  replace_sizes<N>(options.sizes, request, form);
  return options;
}

}  // namespace switchyard
