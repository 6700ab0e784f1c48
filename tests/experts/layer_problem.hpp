// A small problem of one mixture-of-experts layer that every rank knows whole, and what the oracle
// makes of it; with the parts of it that a layer under test needs, too (layer_run.hpp).
#pragma once

#include <string>

#include "experts/moe_layer.hpp"
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

// What oracle and layer have in common: the key of the experts' dropout; the router's parts; the
// position of each token in its sequence, i32 [T], and the id of the t-th token of the problem.
RandomKey dropout_key();
RouterParts parts_of(const LayerCase& c);
void write_positions(const TensorView& positions, std::int64_t length);
std::int32_t token_id(std::int64_t t);

}  // namespace switchyard::test
