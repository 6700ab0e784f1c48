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

void add_return_mistakes(const ExpertsConfig& config, Mistakes& mistakes) {
  const DispatchConfig& dispatch = config.dispatch;
  if (dispatch.kind != DispatchKind::hierarchical) {
    mistakes.add({"experts.dispatch.return", "experts.dispatch.kind"},
                 fmt::format("return: summed adds up on the ranks that kind hierarchical sends "
                             "tokens through, and kind is {}; write kind: hierarchical, or "
                             "return: rows",
                             name_of(dispatch.kind)));
    return;
  }
  if (dispatch.chunks > 1)
    mistakes.add({"experts.dispatch.return", "experts.dispatch.chunks"},
                 fmt::format("sums wait for all experts, and chunks = {} would send some ahead; "
                             "write chunks: 1, or return: rows",
                             dispatch.chunks));
  if (config.max_rows > 0)
    mistakes.add({"experts.dispatch.return", "experts.max_rows"},
                 "sums need all rows of a token at once, and max_rows may take them in parts; "
                 "leave max_rows out, or write return: rows");
  if (config.dropout > 0)
    mistakes.add({"experts.dispatch.return", "experts.dropout"},
                 "dropout is drawn for what each expert returns, where the token is, and "
                 "return: summed brings only sums there; write dropout: 0, or return: rows");
  if (dispatch.wire == kernels::WireFormat::fp8)
    mistakes.add({"experts.dispatch.return", "experts.dispatch.wire"},
                 "with return: summed gradients travel as tokens do, and fp8 is too coarse for "
                 "them; write wire: bf16, or return: rows");
}

void add_padding_mistakes(const ExpertsConfig& config, Mistakes& mistakes) {
  if (config.capacity_factor == 0)
    mistakes.add({"experts.capacity_padding", "experts.capacity_factor"},
                 "capacity_padding fills rows up to a capacity, and there is none; write a "
                 "capacity_factor above 0, or leave capacity_padding out");
  if (config.router.replays())
    mistakes.add({"experts.capacity_padding", "experts.router.replay"},
                 "a trace's choices may be more than a capacity; leave capacity_padding out");
  if (config.dispatch.kind != DispatchKind::all_to_all)
    mistakes.add({"experts.capacity_padding", "experts.dispatch.kind"},
                 fmt::format("with kind {} tokens travel, and how many follows from the router; "
                             "leave capacity_padding out, or write kind: all_to_all",
                             name_of(config.dispatch.kind)));
  if (config.dispatch.chunks > 1)
    mistakes.add({"experts.capacity_padding", "experts.dispatch.chunks"},
                 "padded rows of all experts are put in order at once; leave capacity_padding "
                 "out, or write chunks: 1");
  if (config.max_rows > 0)
    mistakes.add({"experts.capacity_padding", "experts.max_rows"},
                 "capacity_padding sends a rank as many rows in every step, which are not taken "
                 "in parts; leave it or max_rows out");
}

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
  if (dispatch.returns == DispatchReturn::summed) add_return_mistakes(config, mistakes);
  if (config.capacity_padding) add_padding_mistakes(config, mistakes);
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
  if (std::ssize(config.placement.order) > config.num_experts)
    mistakes.add({"experts.placement.order", "run.device"},
                 "on a card every expert has one place; name each once in order, or write "
                 "run.device: cpu");
  if (config.placement.replicas > 0)
    mistakes.add({"experts.placement.replicas", "run.device"},
                 "on a card every expert has one place; write replicas: 0 or run.device: cpu");
  if (config.max_rows > 0)
    mistakes.add({"experts.max_rows", "run.device"},
                 "on a card a rank holds all its rows; write max_rows: 0 or run.device: cpu");
  return mistakes.take();
}

}  // namespace switchyard
