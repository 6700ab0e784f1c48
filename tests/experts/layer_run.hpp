// One mixture-of-experts layer on this rank's share of a small problem that every rank knows whole,
// so that any layout can be held against the oracle. S sequences are dealt to the ranks in order.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "experts/moe_layer.hpp"
#include "tensor/error.hpp"
#include "tests/support/reference_moe.hpp"

namespace switchyard::test {

// Column 0 of x is 1, so that column 0 of the router's weight is a bias.
enum class Routing { natural, all_to_last_expert, none_to_first_expert };

struct LayerCase {
  std::int64_t num_experts = 4;
  std::int64_t top_k = 2;
  bool normalize = true;
  Routing routing = Routing::natural;
  DType dtype = DType::f32;
  double dropout = 0;
  bool drops = false;  // whether the router is one that drops choices
  double dy_scale = 0.2;
  RouterConfig router = {};
  std::int64_t latent = 0;
  SharedExpertsConfig shared = {};
  BalanceScope scope = BalanceScope::sequence;
  BalanceReduction reduction = BalanceReduction::sum;
  double capacity_factor = 0;
  kernels::DropBy drop_by = kernels::DropBy::position;
  BalanceLoss loss = BalanceLoss::shares;

  std::string describe() const;
  ExpertsConfig config() const;

  static constexpr std::int64_t hidden = 16;
  static constexpr std::int64_t intermediate = 12;
  static constexpr std::int64_t sequence_length = 4;
  static constexpr std::int64_t num_sequences = 12;  // divides by 1, 2, 3 and 4 ranks
  static constexpr std::int64_t num_tokens = num_sequences * sequence_length;
  static constexpr std::int64_t num_layers = 2;
  static constexpr std::int64_t step = 3;
};

// The whole problem and what the oracle makes of it.
struct Problem {
  explicit Problem(const LayerCase& c, const std::string& inputs = "inputs");
  // What the oracle makes of it now.
  void solve();

  // Of a latent space: moe then has the maps down and up folded into its experts, which is the same
  // function.
  struct Latent {
    Doubles down, up;              // [D, H], [H, D]
    Doubles gate_up, expert_down;  // [E, 2 I, D], [E, D, I]
    Doubles d_down, d_up, d_gate_up, d_expert_down;
  };

  ReferenceMoe moe;
  Latent latent;
  Doubles x, dy;  // [T, H], as the compute type holds them
  ReferenceMoe::Forward forward;
  ReferenceMoe::Gradients gradients;

 private:
  void fold(const LayerCase& c);
  void unfold();
};

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
