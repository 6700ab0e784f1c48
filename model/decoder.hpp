// Generation on one rank: extends one sequence token by token, with the keys and values of the
// tokens so far in a cache; a layer with a window keeps those that it still shows. The model's
// experts must all be on this rank (expert degree 1), and its weights packed. Buffers are made for
// the number of tokens added at a time: a prompt goes through in chunks, then single tokens use one
// set of buffers over and over.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/transformer.hpp"

namespace switchyard {

class Decoder {
 public:
  // max_length: tokens of prompt and continuation together. May exceed model.sequence_length:
  // positions go on, at the frequencies that the configuration gives for any position.
  Decoder(const Transformer& model, std::int64_t max_length);
  ~Decoder();

  // Adds tokens (ids below the vocabulary in use) to the sequence and returns the logits after the
  // last one: f32, one for each id of the vocabulary in use, valid until the next call.
  std::span<const float> append(std::span<const std::int32_t> tokens);
  std::int64_t length() const { return generation_.length; }  // tokens so far
  std::int64_t max_length() const { return generation_.max_length; }
  void clear();  // to begin another sequence

 private:
  void extend(std::span<const std::int32_t> tokens);

  const Transformer& model_;
  Device& device_;
  Generation generation_;
  Tensor sequence_ids_;                        // i64 [1]
  Tensor tokens_;                              // i32 [state's num_tokens]
  Tensor positions_;                           // i32 [state's num_tokens]
  std::unique_ptr<Block::ExtendState> state_;  // for tokens_.numel() tokens
  std::vector<float> host_logits_;             // [V]
  Tensor logits_;                              // f32 [1, V]
};

}  // namespace switchyard
