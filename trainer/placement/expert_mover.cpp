#include "trainer/placement/expert_mover.hpp"

#include <algorithm>
#include <chrono>

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "parallel/placement_choice.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

using Clock = std::chrono::steady_clock;

// Runs of neighbouring elements, by the rank that they go to or come from.
struct Runs {
  std::vector<std::int64_t> first, count;
  std::vector<std::size_t> ends;

  void add(std::int64_t begin, std::int64_t numel) {
    first.push_back(begin);
    count.push_back(numel);
  }
  RankRows rows() const { return {first, count, ends}; }
};

// Whole experts of a rank's tensor.
std::vector<MovedRange> ranges_of(std::span<const ExpertMove> moves, std::int64_t expert_numel) {
  std::vector<MovedRange> ranges;
  for (const ExpertMove& move : moves)
    ranges.push_back({move.from_rank, move.from_place * expert_numel, move.to_rank,
                      move.to_place * expert_numel, expert_numel});
  return ranges;
}

}  // namespace

ExpertMover::ExpertMover(ParameterStore& store, AdamW& optimizer,
                         std::vector<Placement>& placements, const PlacementConfig& config)
    : store_(store), optimizer_(optimizer), placements_(placements), config_(config) {
  find_parameters();
  expect(parameters_.size() == placements.size(), "a placement for each layer with experts");
  std::int64_t most = 0;
  for (const std::vector<Moved>& layer : parameters_)
    for (const Moved& moved : layer) most = std::max(most, moved.parameter->local_shape().numel());
  for (const Placement& placement : placements)
    rows_.emplace_back(static_cast<std::size_t>(placement.num_experts()));
  received_ = Tensor(store.device(), Purpose::communication, DType::f32, {most});
}

void ExpertMover::find_parameters() {
  Group& ranks = store_.mesh().group(Axis::expert);
  const std::vector<OwnedRange> owned = store_.owned_ranges();
  std::vector<std::vector<Moved>> by_layer(static_cast<std::size_t>(store_.num_layers()));
  for (const Bucket& bucket : store_.buckets()) {
    if (bucket.axis != Axis::expert_data) continue;
    for (const BucketEntry& entry : bucket.entries) {
      Moved moved;
      moved.parameter = entry.parameter;
      const std::array<std::int64_t, 2> mine = {entry.begin, bucket.part};
      std::vector<std::int64_t> all(mine.size() * static_cast<std::size_t>(ranks.size()));
      ranks.all_gather_values(mine, all);
      for (std::size_t i = 0; i < all.size(); i += mine.size())
        moved.places.push_back({.begin = all[i], .part = all[i + 1]});
      for (const OwnedRange& range : owned)
        if (range.parameter == entry.parameter) moved.owned = range;
      by_layer[static_cast<std::size_t>(entry.parameter->layer())].push_back(std::move(moved));
    }
  }
  for (std::vector<Moved>& layer : by_layer)
    if (!layer.empty()) parameters_.push_back(std::move(layer));
}

void ExpertMover::count(const TensorView& loads) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(loads.numel()));
  kernels::copy_to_host<std::int64_t>(loads, counts);
  auto row = counts.begin();
  for (std::size_t layer = 0; layer < placements_.size(); ++layer, row += loads.cols())
    for (std::int64_t place = 0; place < placements_[layer].num_places(); ++place)
      rows_[layer][static_cast<std::size_t>(placements_[layer].expert_at(place))] += row[place];
}

PlacementChange ExpertMover::move() {
  PlacementChange change;
  const Clock::time_point started = Clock::now();
  const auto num_layers = static_cast<double>(placements_.size());
  change.imbalance_before = change.imbalance_after = 0;
  for (std::size_t layer = 0; layer < placements_.size(); ++layer) {
    const Placement after =
        balanced_placement(placements_[layer], rows_[layer], config_.least_gain);
    change.imbalance_before += rank_imbalance(placements_[layer], rows_[layer]) / num_layers;
    change.imbalance_after += rank_imbalance(after, rows_[layer]) / num_layers;
    change.num_replicated += std::ssize(after.shared());
    move_layer(layer, after, change);
    std::ranges::fill(rows_[layer], 0);
  }
  store_.device().compute_stream().wait_host();
  change.seconds = std::chrono::duration<double>(Clock::now() - started).count();
  return change;
}

void ExpertMover::move_layer(std::size_t layer, const Placement& after, PlacementChange& change) {
  const std::vector<ExpertMove> moves = moves_between(placements_[layer], after);
  if (moves.empty()) return;
  const Mesh& mesh = store_.mesh();
  const auto num_replicas = static_cast<double>(mesh.degree(Axis::expert_data));
  for (const Moved& moved : parameters_[layer]) {
    const std::int64_t numel = moved.expert_numel();
    change.bytes += num_replicas * exchange(mesh.group(Axis::expert), ranges_of(moves, numel),
                                            moved.parameter->value().flat(), 0);
    if (moved.parameter->is_trained()) {
      const std::vector<MovedRange> ranges = moved_ranges(moves, numel, moved.places);
      const bool owns = moved.owned.numel > 0;
      for (const bool second : {false, true}) {
        TensorView moment;
        if (owns)
          moment = second ? optimizer_.moment2(moved.owned) : optimizer_.moment1(moved.owned);
        change.bytes += exchange(mesh.group(Axis::world), ranges, moment, moved.owned.bucket_begin);
      }
    }
    store_.rearrange(*moved.parameter, after.experts_of(mesh.index(Axis::expert)), after.shared());
  }
  placements_[layer] = after;
  change.num_layers += 1;
  change.num_experts += std::ranges::count_if(moves, &ExpertMove::leaves_its_rank);
}

// What a range replaces may be on its way to another rank: nothing is written before all arrived.
double ExpertMover::exchange(Group& group, const std::vector<MovedRange>& ranges,
                             const TensorView& tensor, std::int64_t begin) {
  Runs sent, received;
  std::vector<TensorView> targets;
  std::int64_t num_received = 0;
  double bytes = 0;
  for (int other = 0; other < group.size(); ++other) {
    for (const MovedRange& range : ranges) {
      if (range.from_rank == group.rank() && range.to_rank == other)
        sent.add(range.from - begin, range.numel);
      if (range.from_rank == other && range.to_rank == group.rank()) {
        received.add(num_received, range.numel);
        num_received += range.numel;
        targets.push_back(tensor.slice_rows(range.to - begin, range.to - begin + range.numel));
      }
      if (range.from_rank == other && range.to_rank != other)
        bytes += static_cast<double>(range.numel * size_of(DType::f32));
    }
    sent.ends.push_back(sent.first.size());
    received.ends.push_back(received.first.size());
  }
  const TensorView arrived = received_->slice_rows(0, num_received);
  const TensorView elements = tensor.device == nullptr ? arrived.slice_rows(0, 0) : tensor;
  group
      .start_all_to_all_v(elements.reshape({elements.numel(), 1}), sent.rows(),
                          arrived.reshape({num_received, 1}), received.rows())
      .wait(store_.device().compute_stream());
  for (std::size_t i = 0; i < targets.size(); ++i)
    kernels::copy(arrived.slice_rows(received.first[i], received.first[i] + received.count[i]),
                  targets[i]);
  return bytes;
}

}  // namespace switchyard
