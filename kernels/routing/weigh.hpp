// With which weights the chosen experts enter the output of a layer, in fp32.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct Weighing {
  bool renormalize = false;
  float scale = 1;
};

// weights[t, j] = scale * scores[t, indices[t, j]]; renormalised: divided by the sum of the scores
// over j (as Mixtral does; the softmax of the chosen logits alone, if the scores are a softmax). A
// dropped choice, -1, weighs nothing and is in no sum. scores: f32 [T, E]; indices: i32 [T, k];
// weights: f32 [T, k], written.
void weigh(const TensorView& scores, const TensorView& indices, const Weighing& weighing,
           const TensorView& weights);

// The gradient to the chosen scores; 0 of a dropped choice. dweights, dchosen: f32 [T, k]; dchosen
// is written and may be dweights.
void weigh_backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                    const Weighing& weighing, const TensorView& dchosen);

}  // namespace switchyard::kernels
