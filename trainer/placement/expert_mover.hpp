// Moves experts to other ranks while a run goes on (experts.placement.every): from the rows that
// each expert had since the last time it finds, layer by layer, where experts should live, and
// which of them should have replicas if there are places for such (parallel/placement_choice.hpp).
// It moves or copies weights and moments there. Nothing that a step computes changes by it, but the
// order in which some ranks add up a norm, or the gradient of an expert with replicas: in exact
// mode not a bit.
//
// What travels at a time is one tensor of one layer. It arrives in a buffer of the size of the
// largest, which is allocated at the beginning and in the plan. Between steps: all streams of the
// device are waited for.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/adamw_optimizer.hpp"
#include "trainer/placement/expert_moves.hpp"

namespace switchyard {

// What a change of placement did; the same on all ranks.
struct PlacementChange {
  std::int64_t num_layers = 0;      // with a new placement
  std::int64_t num_experts = 0;     // that live on another rank now, over all layers
  std::int64_t num_replicated = 0;  // that have several places now, over all layers
  double bytes = 0;                 // of values and moments that went to another rank
  double seconds = 0;               // of this rank
  // Means over layers of the fullest rank's rows over the mean, of the rows since the last time:
  // as they were, and as they would have been with the new placement.
  double imbalance_before = 1;
  double imbalance_after = 1;
};

class ExpertMover {
 public:
  // placements: of the layers with experts, in their order; changed by move(). All outlive it. The
  // store is allocated. Collective over the expert axis.
  ExpertMover(ParameterStore& store, AdamW& optimizer, std::vector<Placement>& placements,
              const PlacementConfig& config);

  // After a step: i64 [layers with experts, places + 1], rows by place and what the layer dropped,
  // added up over ranks. The host waits for them.
  void count(const TensorView& loads);
  bool is_due(std::int64_t step) const { return step % config_.every == 0; }
  // If a layer has a new placement, what knows which ranks hold an expert has to be told
  // (holders_changed() of GradientSync and of the optimizer), and the compute copies of the weights
  // are those of before: pack_weights() comes next. Collective.
  PlacementChange move();

 private:
  // A parameter of the experts of one layer.
  struct Moved {
    Parameter* parameter = nullptr;
    std::vector<BucketPlace> places;     // by rank of the expert axis
    OwnedRange owned;                    // what this rank owns of it; numel 0: nothing
    std::int64_t expert_numel() const {  // elements of one expert
      const Shape& shape = parameter->spec().global_shape;
      return shape.numel() / shape[0];
    }
  };
  void find_parameters();
  void move_layer(std::size_t layer, const Placement& after, PlacementChange& change);
  // Takes the ranges of `tensor`, flat f32, which holds the elements from `begin` on, to where they
  // belong in that of the receiving rank. Returns the bytes that pass between ranks of the group.
  double exchange(Group& group, const std::vector<MovedRange>& ranges, const TensorView& tensor,
                  std::int64_t begin);

  ParameterStore& store_;
  AdamW& optimizer_;
  std::vector<Placement>& placements_;
  PlacementConfig config_;
  std::vector<std::vector<Moved>> parameters_;   // by layer with experts
  std::vector<std::vector<std::int64_t>> rows_;  // by layer and expert, since the last time
  Tensor received_;                              // f32 [largest local tensor]
};

}  // namespace switchyard
