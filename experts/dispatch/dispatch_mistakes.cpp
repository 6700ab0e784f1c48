#include "experts/dispatch/dispatch_mistakes.hpp"

#include <fmt/format.h>

#include "kernels/gradient_sum.hpp"

namespace switchyard {

namespace {

class Mistakes {
 public:
  void add(std::vector<std::string_view> keys, std::string text) {
    found_.push_back({std::move(keys), std::move(text)});
  }
  std::vector<ConfigMistake> take() { return std::move(found_); }

 private:
  std::vector<ConfigMistake> found_;
};

}  // namespace

std::vector<ConfigMistake> dispatch_mistakes(const ExpertsConfig& config) {
  constexpr std::int64_t least = 2 * kernels::term_rows;
  const DispatchConfig& dispatch = config.dispatch;
  Mistakes mistakes;
  if (config.max_rows > 0 && config.max_rows < least)
    mistakes.add(
        {"experts.max_rows"},
        fmt::format("max_rows = {} is too few: parts of fewer than {} rows would have to "
                    "cut sums of weight gradients; write at least {}, or 0 for all rows at "
                    "once",
                    config.max_rows, least, least));
  if (dispatch.ranks_per_node > 0 && dispatch.kind != DispatchKind::hierarchical)
    mistakes.add({"experts.dispatch.ranks_per_node", "experts.dispatch.kind"},
                 fmt::format("ranks_per_node = {} counts only with kind hierarchical, not with {}; "
                             "leave it out or change the kind",
                             dispatch.ranks_per_node, name_of(dispatch.kind)));
  return mistakes.take();
}

std::vector<ConfigMistake> dispatch_mistakes_on_card(const ExpertsConfig& config) {
  if (config.num_experts == 0 || config.every == 0) return {};
  const DispatchConfig& dispatch = config.dispatch;
  Mistakes mistakes;
  if (dispatch.kind != DispatchKind::all_to_all)
    mistakes.add({"experts.dispatch.kind", "run.device"},
                 fmt::format("on a card tokens travel by all_to_all; write that in place of {}, or "
                             "run.device: cpu",
                             name_of(dispatch.kind)));
  if (dispatch.chunks > 1)
    mistakes.add({"experts.dispatch.chunks", "run.device"},
                 "on a card all rows travel at once; write chunks: 1 or run.device: cpu");
  if (dispatch.wire != kernels::WireFormat::compute)
    mistakes.add(
        {"experts.dispatch.wire", "run.device"},
        "on a card rows are not packed for the wire; write wire: compute or run.device: cpu");
  if (config.max_rows > 0)
    mistakes.add({"experts.max_rows", "run.device"},
                 "on a card a rank holds all its rows; write max_rows: 0 or run.device: cpu");
  return mistakes.take();
}

}  // namespace switchyard
