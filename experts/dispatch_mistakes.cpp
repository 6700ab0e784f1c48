#include "experts/dispatch_mistakes.hpp"

#include <fmt/format.h>

#include "kernels/gradient_sum.hpp"

namespace switchyard {

std::vector<ConfigMistake> dispatch_mistakes(const ExpertsConfig& config) {
  constexpr std::int64_t least = 2 * kernels::term_rows;
  std::vector<ConfigMistake> found;
  if (config.max_rows > 0 && config.max_rows < least)
    found.push_back({{"experts.max_rows"},
                     fmt::format("max_rows = {} is too few: parts of fewer than {} rows would have "
                                 "to cut sums of weight gradients; write at least {}, or 0 for all "
                                 "rows at once",
                                 config.max_rows, least, least)});
  return found;
}

std::vector<ConfigMistake> dispatch_mistakes_on_card(const ExpertsConfig& config) {
  if (config.num_experts == 0 || config.every == 0) return {};
  std::vector<ConfigMistake> found;
  const auto refuse = [&](std::string_view key, std::string_view value) {
    found.push_back(
        {{key, "run.device"},
         fmt::format("on a card all rows travel at once; write {} or run.device: cpu", value)});
  };
  if (config.dispatch.chunks > 1) refuse("experts.dispatch.chunks", "chunks: 1");
  if (config.max_rows > 0) refuse("experts.max_rows", "max_rows: 0");
  return found;
}

}  // namespace switchyard
