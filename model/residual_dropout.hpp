// Dropout in a pass: the site of a layer, keyed by its name, on the tokens that the pass is about.
// Applied to an activation in the forward pass and, with the same mask, to its gradient in the
// backward pass.
#pragma once

#include "kernels/rows/elementwise.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

inline bool drops(double rate, const Pass& pass) {
  return pass.training && rate > 0;
}

// In place on x [T, H]; nothing unless the pass is a training pass and the rate is above zero.
inline void apply_dropout(const TensorView& x, double rate, RandomKey key, const Pass& pass) {
  if (!drops(rate, pass)) return;
  kernels::DropoutSite site;
  site.key = key;
  site.step = pass.step;
  site.sequence_length = pass.sequence_length;
  site.positions = pass.positions;
  kernels::dropout(x, static_cast<float>(rate), site, pass.sequence_ids);
}

}  // namespace switchyard
