// The short convolution in front of a mixer (kernels/recurrence/short_convolution.hpp), over the
// columns of its queries, keys and values. Where sequences are split over context ranks, each rank
// gets the few rows before its runs (parallel/context/halo_exchange.hpp), once: they are kept for
// the backward pass under every policy, and their gradients go home. Legend: T tokens = S sequences
// of n, m positions that are read here, c channels, w taps.
#pragma once

#include <optional>
#include <string>

#include "kernels/recurrence/short_convolution.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/context/halo_exchange.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

// The most runs of consecutive positions that a rank holds of a sequence.
std::int64_t most_runs(const Mesh& mesh);

class CausalConvolution {
 public:
  // Of all layers whose convolutions are alike.
  struct Scratch {
    Scratch(Device& device, const Mesh& mesh, DType compute, std::int64_t num_sequences,
            const SequenceSplit& split, std::int64_t channels, std::int64_t width);

    std::vector<PositionRange> held, read;
    std::int64_t num_sequences;
    std::vector<std::vector<std::int32_t>> document_starts;
    std::optional<ExchangeProgress> progress;  // these where sequences are split
    std::optional<HaloExchange> exchange;
    HaloMessages messages;
    Tensor gathered;  // [S m, c]
    Tensor dx;        // f32 [S m, c]
  };

  // Registers `prefix`.conv.weight [c, w] and, if asked, `prefix`.conv.bias [c].
  CausalConvolution(ParameterStore& store, const std::string& prefix, std::int64_t channels,
                    std::int64_t width, bool has_bias);

  // Rows of other ranks, [at most S (w - 1) runs, c]; empty where sequences are not split.
  Tensor make_halo(DType compute, std::int64_t num_sequences) const;
  // x, y: [T, c]. halo is written.
  void forward(const TensorView& x, const TensorView& y, const Tensor& halo,
               Scratch& scratch) const;
  // The same without an exchange: reads halo.
  void rebuild(const TensorView& x, const TensorView& y, const Tensor& halo,
               Scratch& scratch) const;
  // dx: written, may be dy. Gradients are added to, and reported ready.
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx, const Tensor& halo,
                Scratch& scratch, const LayerContext& context) const;
  // Generation: x, y [n, c], the tokens that follow num_cached others. last [w - 1, c]: of these
  // the last rows of x, and then of all. rows [w - 1 + n, c]: scratch.
  void extend(const TensorView& x, const TensorView& y, const Tensor& last, const Tensor& rows,
              std::int64_t num_cached) const;
  // Its two moves: the last num_before rows of `last` with x behind them, in rows; and the last of
  // such, of which num_new are new, in `last`.
  static TensorView behind_last(const TensorView& x, const Tensor& last, const Tensor& rows,
                                std::int64_t num_before);
  static void keep_last(const TensorView& rows, std::int64_t num_new, const Tensor& last);
  std::int64_t width() const { return width_; }

 private:
  kernels::ConvolutionShape shape_of(const Scratch& scratch) const;
  TensorView bias() const { return bias_ == nullptr ? TensorView{} : bias_->value(); }
  // Rows of `halo` stand between those of x.
  TensorView with_halo(const TensorView& x, const Tensor& halo, const Scratch& scratch) const;

  Device& device_;
  const Mesh& mesh_;
  std::int64_t channels_;
  std::int64_t width_;
  Parameter& weight_;
  Parameter* bias_;
};

}  // namespace switchyard
