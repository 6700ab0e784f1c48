// What is asked of a benchmark, and how its texts become sizes. UsageError for what is none.
#pragma once

#include <algorithm>
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

// "256x2048x512,1024x512x1024": the numbers of each size, num_members of them, all positive; `form`
// names them: "ROWSxOUTxIN".
std::vector<std::vector<std::int64_t>> numbers_of_sizes(const std::string& sizes,
                                                        std::size_t num_members,
                                                        std::string_view form);

// Puts them, if they are given, in the place of a benchmark's own sizes: each of N numbers, the
// members of a Size in their order.
template <std::size_t N, class Size>
void replace_sizes(std::vector<Size>& sizes, const BenchRequest& request, std::string_view form) {
  if (request.sizes.empty()) return;
  sizes.clear();
  for (const std::vector<std::int64_t>& numbers : numbers_of_sizes(request.sizes, N, form)) {
    std::array<std::int64_t, N> values{};
    std::copy_n(numbers.begin(), N, values.begin());
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
