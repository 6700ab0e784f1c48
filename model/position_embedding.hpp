// Places as vectors that are added to the embedding, one for each position p:
//   absolute    row p of a learned table (Vaswani et al. 2017; GPT-2)
//   sinusoidal  cos(p f_0) ... cos(p f_{H/2 - 1}), sin(p f_0) ... with f_i = 10000^(-2 i / H):
//   those
//               of Vaswani et al. 2017, cosines and sines not interleaved
// Other kinds add nothing. Where positions restart at documents, these do, too.
// Legend: T tokens of this rank's micro-batch, H hidden, L sequence_length.
#pragma once

#include <optional>

#include "kernels/rows/rope.hpp"
#include "model/config.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class PositionEmbedding {
 public:
  // For num_tokens tokens at positions below num_positions.
  struct Scratch {
    Scratch(Device& device, const ModelConfig& model, DType compute, std::int64_t num_tokens,
            std::int64_t num_positions);

    Tensor rows;                // [T, H]: the vectors; none where nothing is added
    kernels::RopeTable angles;  // sinusoidal: p f_i
    Tensor unturned;            // sinusoidal: f32 [1, H], H / 2 ones, then zeros: at angle 0
    Tensor zeros;               // sinusoidal: i32 [T]
  };

  // Registers "position.weight" [L, H] if it is learned.
  PositionEmbedding(ParameterStore& store, const ModelConfig& model);

  // Adds to the stream [T, H], whose tokens are at pass.rotary_positions.
  void forward(const TensorView& stream, Scratch& scratch, const Pass& pass) const;
  // d_stream: gradient of the stream. Adds to the table's, and reports it ready.
  void backward(const TensorView& d_stream, const Pass& pass) const;

 private:
  PositionKind kind_;
  std::int64_t hidden_;
  Parameter* table_ = nullptr;
};

}  // namespace switchyard
