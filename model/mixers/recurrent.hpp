// Mixers that know of a sequence only a state of fixed size: linear attention, Performer, Based,
// retention, lightning attention, Mamba-2's SSD, DeltaNet, gated DeltaNet (docs/mixers.md), and
// Infini-attention, whose state is that before a token's segment and which attends within it. One
// class; what they differ in is a RecurrentForm.
//   [q k v z a b] = x Win^T        q, k, v convolved over the last tokens, mapped, turned
//   o = recurrence(q, k, v, gates of a, betas of b)        y = gated_norm(o, z) Wout^T
// Where sequences are split over context ranks, the convolution's rows come by HaloExchange and the
// states before each run by ContextScan, once: both are kept for the backward pass. In generation
// the state and the convolution's last rows are the cache, whose size no length changes.
// Legend: T tokens = S sequences, H hidden, A heads, G groups, d_k, d_v widths, R runs here.
#pragma once

#include <optional>
#include <string>

#include "kernels/products/linear.hpp"
#include "model/mixers/causal_convolution.hpp"
#include "model/mixers/recurrent_form.hpp"
#include "model/mixers/segment_attention.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/context/context_scan.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

class RecurrentMixer final : public SequenceMixer {
 public:
  struct Saved final : MixerRecord {
    Tensor halo;          // rows before this rank's runs, of the convolution; if split
    Tensor states;        // f32 [R S A, d_k d_v']; if split
    Tensor transitions;   // f32 [runs of all ranks S A, T]; if split
    Tensor out;           // [T, A d_v]: of the recurrence
    Tensor denominators;  // f32 [T, A]; if it is normalized
    Tensor local;         // [T, A d_v]: of the attention within segments
    Tensor lse;           // f32 [T, A]; likewise

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  struct Derived final : MixerRecord {
    Tensor projected;  // [T, columns of Win]
    Tensor convolved;  // [T, columns of q, k, v]; with a convolution
    Tensor steps;      // f32 [T, A]; of Mamba-2
    Tensor gates;      // f32 [T, A]; learned ones
    Tensor betas;      // f32 [T, A]; of the delta rule

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  struct Scratch final : MixerScratch {
    Scratch(Device& device, const Mesh& mesh, const RecurrentForm& form, DType compute,
            std::int64_t num_sequences, const SequenceSplit& split);
    void set_documents(kernels::DocumentStarts document_starts) override;

    std::int64_t num_sequences;
    std::vector<PositionRange> held;
    std::vector<std::vector<std::int32_t>> document_starts;
    std::optional<CausalConvolution::Scratch> conv;
    std::optional<ExchangeProgress> progress;  // these two where sequences are split
    std::optional<ContextScan> scan;
    std::optional<SegmentAttention::Scratch> local;
    Tensor mapped;                  // [T, columns of q, k, v as features]
    Tensor normed;                  // [T, A d_v]: gated_norm(o, z), or o mixed with the local half
    Tensor d_mapped;                // [T, columns of q, k, v as features]
    Tensor d_source;                // [T, columns of q, k, v]; empty: d_mapped serves
    Tensor d_projected;             // [T, columns of Win]
    Tensor dout;                    // [T, A d_v]
    Tensor dsteps, dgates, dbetas;  // f32 [T, A]
    Tensor d_end;                   // f32 [R S A, d_k d_v']; if split
    Tensor norm_workspace;          // u8
    Tensor workspace;               // u8, of the recurrence and of the features
  };
  class Cache final : public MixerCache {
   public:
    Cache(Device& device, const RecurrentForm& form, DType compute);
    void clear() override;
    const Tensor& state() const { return state_; }
    const Tensor& rows() const { return rows_; }
    const Tensor& keys() const { return keys_; }
    const Tensor& features() const { return features_; }
    const Tensor& values() const { return values_; }

   private:
    // Of the segment that is not finished: keys as they are attended with, their features, values.
    Tensor keys_, features_, values_;  // [segment, A d]
    Tensor state_;                     // f32 [A, d_k d_v']
    Tensor rows_;  // [w - 1, columns of q, k, v]: the last ones before the convolution
  };
  struct ExtendScratch final : MixerScratch {
    ExtendScratch(Device& device, const RecurrentForm& form, DType compute,
                  std::int64_t num_tokens);
    Derived derived;
    Saved saved;
    Tensor rows;    // [w - 1 + num_tokens, columns of q, k, v]
    Tensor mapped;  // [num_tokens, columns of q, k, v as features]
    Tensor normed;  // [num_tokens, A d_v]
    std::optional<SegmentAttention::ExtendScratch> local;
    Saved segment;  // what the recurrence leaves of a finished segment, and nobody reads
    Tensor workspace;
  };

  // Registers `prefix`.in.weight [columns, H], `prefix`.output.weight [H, A d_v] and, as the form
  // has them, .conv.weight, .conv.bias, .norm.weight [width], and of each head [A] .decay.rate,
  // .decay.bias, .skip and .memory_gate.
  RecurrentMixer(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                 std::int64_t layer, DType compute);

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
  // Without exchanges and the recurrence: what they gave is in `saved`.
  void rebuild(const TensorView& x, const TensorView& y, const MixerRecord& saved,
               MixerRecord& derived, const LayerContext& context) const override;
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                const MixerRecord& saved, const MixerRecord& derived,
                const LayerContext& context) const override;
  void extend(const TensorView& x, const TensorView& y, std::int64_t num_cached, MixerCache& cache,
              const LayerContext& context) const override;

 private:
  // Columns of q, k, v.
  struct Mixed {
    TensorView q, k, v, keys;  // keys: q and k
  };
  Tensor constants(const Shape& shape, const std::vector<float>& values) const;
  Mixed mixed_of(const TensorView& rows) const;
  Mixed mapped_of(const TensorView& rows) const;  // the same with their features
  TensorView mixed_in(const TensorView& projected) const;
  TensorView columns(const TensorView& projected, std::int64_t begin, std::int64_t count) const {
    return projected.slice_cols(begin, begin + count);
  }
  TensorView gate_in(const TensorView& projected) const;
  // What the maps read: the convolution's rows, or the projection's.
  TensorView source_of(const Derived& derived) const;
  void make_gates(const Derived& derived) const;
  void map(const TensorView& source, const TensorView& mapped, const TensorView& workspace,
           const LayerContext& context) const;
  void map_backward(const Mixed& d_mapped, const Mixed& source, const Mixed& d_source,
                    const TensorView& workspace) const;
  void turn(const Mixed& mixed, kernels::Rotation rotation, const LayerContext& context) const;
  kernels::RecurrenceInputs inputs_of(const TensorView& mapped, const Derived& derived) const;
  kernels::RecurrenceOutputs outputs_of(const Saved& saved) const;
  // gated_norm(o, z), o mixed with the local half, or o.
  TensorView normed_of(const Saved& saved, const Derived& derived, const Tensor& normed) const;
  SegmentAttention::Rows local_rows(const Mixed& mixed) const {
    return {mixed.q, mixed.k, mixed.v};
  }
  void extend_segments(std::int64_t num_tokens, std::int64_t num_cached, Cache& cache,
                       const LayerContext& context) const;
  void differentiate_gates(const Derived& derived, const Scratch& scratch,
                           const LayerContext& context) const;

  Device& device_;
  const Mesh& mesh_;
  RecurrentForm form_;
  std::string kind_;
  DType compute_;
  Parameter& in_;
  std::optional<CausalConvolution> conv_;
  std::optional<SegmentAttention> local_;
  Parameter* norm_ = nullptr;
  Parameter* rate_ = nullptr;
  Parameter* rate_bias_ = nullptr;
  Parameter* skip_ = nullptr;
  Parameter* output_ = nullptr;
  Tensor decay_;       // f32 [1, A]; of heads that all tokens share it in
  Tensor directions_;  // f32 [features, d_k]; of random features
  kernels::PackedWeight packed_in_;
  kernels::PackedWeight packed_output_;
};

}  // namespace switchyard
