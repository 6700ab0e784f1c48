#include "trainer/run/meters/layer_meter.hpp"

#include <algorithm>
#include <utility>

namespace switchyard {

std::vector<LayerSeconds> layer_seconds_of_ranks(std::span<const double> experts,
                                                 std::span<const double> exchanges, Group& world) {
  const std::size_t num_layers = experts.size();
  std::vector<double> sums(experts.begin(), experts.end());
  sums.insert(sums.end(), exchanges.begin(), exchanges.end());
  std::vector<double> least(exchanges.begin(), exchanges.end());
  world.all_reduce_values(sums, ReduceOp::sum);
  world.all_reduce_values(least, ReduceOp::min);
  const auto num_ranks = static_cast<double>(world.size());
  std::vector<LayerSeconds> seconds;
  for (std::size_t i = 0; i < num_layers; ++i)
    seconds.push_back({.experts = sums[i] / num_ranks,
                       .exchange = least[i],
                       .wait = std::max(0.0, sums[num_layers + i] / num_ranks - least[i])});
  return seconds;
}

LayerMeter::LayerMeter(Device& device, std::vector<std::int64_t> layers, Group& world)
    : device_(device), layers_(std::move(layers)), world_(world) {}

LayerMeter::~LayerMeter() {
  if (!marks_.empty()) device_.profile().keep_marks_in(nullptr);
}

void LayerMeter::begin_step() {
  marks_.clear();
  device_.profile().keep_marks_in(&marks_);
}

std::vector<LayerSeconds> LayerMeter::end_step() {
  Stream& stream = device_.compute_stream();
  const TimePoint ended = stream.mark();
  std::vector<double> experts(layers_.size()), exchanges(layers_.size());
  // The profile lets go of what it has measured only when nobody keeps marks.
  for (std::size_t i = 0; i < marks_.size(); ++i) {
    const PartMark& mark = marks_[i];
    const auto layer = std::ranges::find(layers_, std::int64_t{mark.layer});
    const bool moves = mark.part == Part::dispatch || mark.part == Part::combine;
    if (layer == layers_.end() || !(moves || mark.part == Part::experts)) continue;
    const TimePoint end = i + 1 < marks_.size() ? marks_[i + 1].time : ended;
    (moves ? exchanges : experts)[static_cast<std::size_t>(layer - layers_.begin())] +=
        stream.seconds_between(mark.time, end);
  }
  device_.profile().keep_marks_in(nullptr);
  marks_.clear();
  return layer_seconds_of_ranks(experts, exchanges, world_);
}

}  // namespace switchyard
