// The tensors of this rank's micro-batch on the device, allocated once and filled for each. Local
// rows are [S, n]: of every sequence the n positions of this rank's segments, ascending.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/loader.hpp"
#include "model/transformer.hpp"
#include "parallel/pass.hpp"
#include "trainer/objective.hpp"

namespace switchyard {

class DeviceBatch {
 public:
  // restart_positions: rotary positions count from the beginning of each document, which the
  // batches then tell. splits_sequences: whether other ranks hold other segments.
  // objective: makes examples of the batches; outlives this object.
  DeviceBatch(Device& device, const BatchLayout& layout, Objective& objective,
              bool splits_sequences, bool restart_positions);

  // Copies a batch's examples to the device. Nothing to copy on the plan device.
  void upload(const Batch& batch);

  // Fields of a pass that tell which tokens these are.
  void describe(Pass& pass) const;
  const TokenBatch& tokens() const { return view_; }

 private:
  void count_positions();

  BatchLayout layout_;
  Objective& objective_;
  bool splits_sequences_;
  bool restarts_;
  Tensor tokens_;            // i32 [S n]
  Tensor targets_;           // i32 [S n]
  Tensor weights_;           // f32 [S n]; none if all targets count 1
  Tensor sequence_ids_;      // i64 [S]
  Tensor positions_;         // i32 [S n]
  Tensor rotary_positions_;  // i32 [S n]; none if they are the positions
  Tensor document_begins_;   // i32 [S, length]; as rotary_positions_
  Tensor token_numbers_;     // i32 [S n]; none unless sequences are split
  TokenBatch view_;
};

}  // namespace switchyard
