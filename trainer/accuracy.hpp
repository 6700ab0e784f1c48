// How often the most probable token is the right one, beside the loss of an evaluation: on the
// device, where the logits are, so that one number comes back.
#pragma once

#include "model/transformer.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

class Accuracy {
 public:
  // For micro-batches of at most num_tokens tokens on this rank.
  Accuracy(Device& device, std::int64_t num_tokens);

  // Nothing was counted yet.
  void begin();
  // What the head is to show logits to for one micro-batch, of which they are all shown.
  Head::SeeLogits watch(const TokenBatch& batch, std::int64_t vocab_size);
  // Adds the micro-batch that was shown.
  void add();
  // This rank's right answers since begin(), each as its target's weight says. The host waits.
  double num_right() const;

 private:
  Tensor right_;  // f32 [T]
  Tensor sum_;    // f64 [1]
};

}  // namespace switchyard
