// What a benchmark prints, caught: rank 0's text as lines, or its JSON parsed.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "bench/report.hpp"

namespace switchyard::test {

using RunBenchmark = std::function<void(const bench::Repeats&, const bench::Output&)>;

inline const bench::Repeats few{.num_warmup = 0, .num_steps = 2};
inline const bench::Versions versions{"1.2.3", "C++ 4", "5.6", "MPI 7"};

inline std::string printed(const RunBenchmark& run, bool json) {
  std::ostringstream stream;
  run(few, {.stream = stream, .json = json, .versions = versions});
  return stream.str();
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

inline int count_lines(const std::string& text, const std::string& beginning) {
  int count = 0;
  for (const std::string& line : lines_of(text)) count += line.starts_with(beginning) ? 1 : 0;
  return count;
}

}  // namespace switchyard::test
