// Learned summaries of whole blocks of keys and values (a causal form of Linformer: Wang et al.,
// "Linformer", 2020): R weighted sums of the B tokens of a block, with weights that all blocks and
// heads share, E for keys and F for values. Attention makes them of what is at hand
// (parallel/context/block_attention.hpp).
#pragma once

#include <string>

#include "model/config.hpp"
#include "parallel/context/part_attention.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class BlockSummaries {
 public:
  // Registers `prefix`.summary.key.weight (E) and `prefix`.summary.value.weight (F), [R, B], which
  // start from normal(0, 1 / B): a sum is then as large as one of its tokens.
  BlockSummaries(ParameterStore& store, const std::string& prefix, const MixerConfig& mixer);

  void put_weights(AttentionInputs& inputs) const;
  // Where gradients are added to.
  void put_gradients(AttentionRowGradients& gradients) const;
  void report_ready(const Pass& pass) const;

 private:
  Parameter& keys_;
  Parameter& values_;
};

}  // namespace switchyard
