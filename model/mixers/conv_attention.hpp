// Attention in some of the heads, and in the others a convolution whose taps each token makes for
// itself (span-based dynamic convolution, ConvBERT: Jiang et al. 2020, in a causal form):
//   a = conv(x) Wpoint^T, [q u] = x Win^T, logits = (q a) Wkernel^T      conv: depthwise, w taps
//   o_t = sum over j < w of softmax(logits_t)_j u_{t - j}, of each head  y = attention(x) + o
//   Wout^T
// which is what heads side by side under one output projection give. Attention is that of
// model/mixers/attention.hpp, of the heads that are left.
// Legend: T tokens, H hidden, w taps, Ac heads of the convolution, C = Ac D.
#pragma once

#include <memory>
#include <string>

#include "model/mixers/attention.hpp"
#include "model/mixers/causal_convolution.hpp"

namespace switchyard {

class ConvAttentionMixer final : public SequenceMixer {
 public:
  struct Saved final : MixerRecord {
    std::unique_ptr<MixerRecord> attention;
    Tensor halo;  // of x, as of CausalConvolution
    Tensor rows;  // [S m, C]: u of all positions that are read; only where sequences are split

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  struct Derived final : MixerRecord {
    std::unique_ptr<MixerRecord> attention;
    Tensor convolved;  // [T, H]
    Tensor pointwise;  // [T, C]: a
    Tensor inputs;     // [T, 2 C]: q | u
    Tensor products;   // [T, C]: q a
    Tensor logits;     // f32 [T, Ac w]
    Tensor out;        // [T, C]: o

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  struct Scratch final : MixerScratch {
    Scratch(Device& device, const Mesh& mesh, DType compute, std::int64_t num_sequences,
            const SequenceSplit& split, std::int64_t hidden, std::int64_t channels,
            std::int64_t width);
    void set_documents(kernels::DocumentStarts document_starts) override;

    std::unique_ptr<MixerScratch> attention;
    CausalConvolution::Scratch conv;        // of x
    CausalConvolution::Scratch span;        // of u
    Tensor y;                               // [T, H]
    Tensor d_out, d_products, d_pointwise;  // [T, C]
    Tensor d_inputs;                        // [T, 2 C]
    Tensor d_logits, d_kernels;             // f32 [T, Ac w], and of the compute type
    Tensor d_convolved;                     // [T, H]
  };
  class Cache final : public MixerCache {
   public:
    void clear() override { attention->clear(); }
    std::unique_ptr<MixerCache> attention;
    Tensor last_x, last_u;  // [w - 1, H], [w - 1, C]: the last rows
  };
  struct ExtendScratch final : MixerScratch {
    std::unique_ptr<MixerScratch> attention;
    Derived derived;        // of the new tokens
    Tensor rows_x, rows_u;  // [w - 1 + num_tokens, H], [w - 1 + num_tokens, C]
    Tensor y;               // [num_tokens, H]
  };

  // Registers what AttentionMixer does, of fewer heads, and `prefix`.span.conv.weight [H, w],
  // `prefix`.span.point.weight [C, H], `prefix`.span.input.weight [2 C, H],
  // `prefix`.span.kernel.weight [Ac w, C] and `prefix`.span.output.weight [H, C].
  ConvAttentionMixer(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                     const MixerConfig& mixer, DType compute, std::int64_t layer = 0);

  std::string_view kind() const override { return kind_; }
  std::unique_ptr<MixerRecord> make_saved(std::int64_t num_tokens,
                                          std::int64_t num_sequences) const override;
  std::unique_ptr<MixerRecord> make_derived(std::int64_t num_tokens,
                                            std::int64_t num_sequences) const override;
  std::unique_ptr<MixerScratch> make_scratch(std::int64_t num_sequences,
                                             const SequenceSplit& split) const override;
  std::unique_ptr<MixerCache> make_cache(std::int64_t max_length,
                                         std::int64_t max_new_tokens) const override;
  std::unique_ptr<MixerScratch> make_extend_scratch(std::int64_t num_tokens,
                                                    std::int64_t max_length) const override;
  void pack_weights() override;
  void forward(const TensorView& x, const TensorView& y, MixerRecord& saved, MixerRecord& derived,
               const LayerContext& context) const override;
  void rebuild(const TensorView& x, const TensorView& y, const MixerRecord& saved,
               MixerRecord& derived, const LayerContext& context) const override;
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                const MixerRecord& saved, const MixerRecord& derived,
                const LayerContext& context) const override;
  void extend(const TensorView& x, const TensorView& y, std::int64_t num_cached, MixerCache& cache,
              const LayerContext& context) const override;

 private:
  struct Weight {
    Weight(ParameterStore& store, const std::string& name, std::int64_t out, std::int64_t in,
           double std, DType compute);
    Parameter& parameter;
    kernels::PackedWeight packed;
  };
  void fill(Derived& derived, std::int64_t num_tokens, Purpose purpose) const;
  TensorView queries(const Derived& derived) const {
    return derived.inputs->slice_cols(0, channels_);
  }
  TensorView values(const Tensor& inputs) const {
    return inputs->slice_cols(channels_, 2 * channels_);
  }
  kernels::ConvolutionShape shape_of(const CausalConvolution::Scratch& span) const;
  // From what the convolution made of x to the logits.
  void project(const TensorView& x, const Derived& derived) const;
  // Adds the convolution's heads, whose values are `rows`, to y.
  void add_heads(const kernels::ConvolutionShape& shape, const TensorView& rows,
                 const Derived& derived, const Tensor& scratch, const TensorView& y) const;

  Device& device_;
  const Mesh& mesh_;
  std::int64_t hidden_, num_heads_, channels_, width_;
  DType compute_;
  AttentionMixer attention_;
  CausalConvolution conv_;
  Weight point_, input_, kernel_, output_;
  std::string kind_;
};

}  // namespace switchyard
