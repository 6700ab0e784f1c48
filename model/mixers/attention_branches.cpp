// The branches of native sparse attention, backward: each is attention by a pattern of its own.
#include "kernels/rows/elementwise.hpp"
#include "model/mixers/attention.hpp"

namespace switchyard {

std::array<TensorView, 2> AttentionMixer::attention_gradients(const Scratch& scratch) const {
  return {turned_gradients(scratch), heads_of(scratch.dqkv).v};
}

// The last branch tells of gradients; what those before gave q, k and v is kept meanwhile.
void AttentionMixer::backward_of_branches(const TensorView& x, const Saved& saved,
                                          const Derived& derived,
                                          const LayerContext& context) const {
  auto& scratch = dynamic_cast<Scratch&>(context.scratch);
  const BranchGates::Scratch& own = scratch.branches;
  gates_->backward(scratch.dout, saved.branches, derived.gates, x, own, context.pass);
  Pass untold = context.pass;
  untold.sync = nullptr;
  const LayerContext quiet{untold, context.layer, context.rope, scratch};
  const std::array<TensorView, 2> gradients = attention_gradients(scratch);
  const std::int64_t turned = gradients[0].cols();
  const std::array<TensorView, 2> sums = {own.d_qkv->slice_cols(0, turned),
                                          own.d_qkv->slice_cols(turned, own.d_qkv->cols())};
  const auto branches = pattern_.branches();
  for (std::size_t c = 0; c < branches.size(); ++c) {
    const auto number = static_cast<std::int64_t>(c);
    const bool is_last = c + 1 == branches.size();
    gates_->backward_of_branch(scratch.dout, derived.gates, number, own.d_branch);
    backward_of_attention(branches[c], false,
                          {BranchGates::branch(saved.branches, number),
                           BranchGates::branch(saved.lse, number), own.d_branch},
                          saved, derived, is_last ? context : quiet);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (c == 0)
        kernels::copy(gradients[i], sums[i]);
      else
        kernels::add(sums[i], gradients[i], is_last ? gradients[i] : sums[i]);
    }
  }
}

}  // namespace switchyard
