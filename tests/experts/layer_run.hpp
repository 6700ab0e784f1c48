// One mixture-of-experts layer on this rank's share of a small problem (layer_problem.hpp), so that
// any layout can be held against the oracle. S sequences are dealt to the ranks in order.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "tensor/error.hpp"
#include "tests/experts/layer_problem.hpp"

namespace switchyard::test {

// Weights of one layer and what L passes through it share; on any device.
class LayerRun {
 public:
  LayerRun(Device& device, const Mesh& mesh, const LayerCase& c, std::int64_t planned_rows = 0);

  // One micro-batch of this rank: its tensors and what the layer saved.
  struct Batch {
    Tensor x, y, dy, dx;  // [T, H] of this rank
    Tensor sequence_ids, positions, tokens;
    Tensor counts;  // i32 [E]: rows of this rank's tokens by expert
    MoeLayer::Saved saved;
    MoeLayer::Derived derived;
  };
  Batch& add_batch();
  void load_weights(const ReferenceMoe& moe, const Problem::Latent& latent = {});
  void load_inputs(Batch& batch, const Problem& problem) const;
  // training: whether it is a pass of a training step; a backward pass follows such ones alone.
  void forward(Batch& batch, bool training = true);
  void backward(Batch& batch);
  // The passes from now on are micro-step `index` of `count`; a step begins with the first.
  void begin_micro_step(std::int64_t index, std::int64_t count);
  // Sums gradients over the replicas, as GradientSync does in a real run.
  void reduce_gradients();

  const Parameter& parameter(const std::string& name) const;
  bool has_router_weights() const { return case_.router.has_weights(); }
  std::int64_t num_local_tokens() const { return num_local_tokens_; }
  std::int64_t first_token() const { return mesh_.index(Axis::data) * num_local_tokens_; }
  // Room for the rows of the fullest rank of the expert group, as after a step; their number.
  std::int64_t agree_on_rows();
  // Balance and z loss of the last forward pass, over this rank's tokens. Not on the plan device.
  std::span<const double> losses() const { return scratch_.losses->span<double>(); }

 private:
  Pass pass_of(const Batch& batch, bool training = true) const;

  Device& device_;
  const Mesh& mesh_;
  LayerCase case_;
  std::int64_t num_local_sequences_;
  std::int64_t num_local_tokens_;
  Placement placement_;
  ParameterStore store_;
  MoeLayer layer_;
  RowCapacity capacity_;
  MoeLayer::Scratch scratch_;
  Tensor step_counts_;
  std::int64_t micro_step_ = 0;
  std::int64_t num_micro_steps_ = 1;
  std::deque<Batch> batches_;
};

}  // namespace switchyard::test
