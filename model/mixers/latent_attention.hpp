// Multi-head latent attention (DeepSeek-V2, 2024): keys and values of all heads are made of one
// short vector a token, the latent, so that in generation only it and one shared turned key are
// kept.
//   c = norm(first L of x Wkv_down^T)   k_r = turn(last R of it), the same for all heads
//   [k_n v]_h = c Wkv_up,h^T            k_h = [k_n,h k_r]
//   [q_n q_r]_h = u Wq,h^T              q_h = [q_n,h turn(q_r,h)],  u = x or norm(x Wq_down^T)
//   y = concat_h(attention(q_h, k_h, v_h)) Wout^T,  scores scaled by 1 / sqrt(N + R) [m^2]
// m: of YaRN, where mscale_all_dim asks for it (model/rope_spec.hpp). A head's elements that turn
// pair i with i + R / 2, as everywhere here (kernels/rows/rope.hpp).
//
// Training makes keys and values of all heads, values padded to the width of keys, and goes through
// ContextAttention as attention does. Generation multiplies Wkv_up into queries and outputs (the
// absorbed form): every head attends to the same latent rows. Legend: T tokens, H hidden, A heads,
// L kv_rank, Q q_rank, N nope_dim, R rope_dim, V value_dim, D = N + R.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/attention/attention.hpp"
#include "kernels/products/linear.hpp"
#include "model/config.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/context/context_attention.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

class LatentAttentionMixer final : public SequenceMixer {
 public:
  struct Saved final : MixerRecord {
    Tensor out;  // [T, A D]: of the attention, padded
    Tensor lse;  // f32 [T, A]

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  // A vector of a token before and behind its norm.
  struct Latent {
    Tensor projected;  // [T, width and more]
    Tensor rstd;       // f32 [T]
    Tensor normed;     // [T, width]
  };
  struct Derived final : MixerRecord {
    Latent query;   // only with q_rank
    Latent kv;      // projected: [T, L + R], the key before it turns
    Tensor q;       // [T, A D], turned
    Tensor k, v;    // [T, A D], turned; padded
    Tensor output;  // [T, A V]: the attention's, without padding

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  struct Scratch final : MixerScratch {
    Scratch(Device& device, const Mesh& mesh, const ModelConfig& model, DType compute,
            std::int64_t num_sequences, const SequenceSplit& split);
    void set_documents(kernels::DocumentStarts document_starts) override;

    ContextAttention attention;
    Tensor heads;                           // [T, A (N + V)]: of Wkv_up, or their gradient
    Tensor dq, dk, dv, dout;                // [T, A D]
    Tensor d_output;                        // [T, A V]
    Tensor d_latent, d_query;               // [T, L], [T, Q]: behind the norms
    Tensor d_projected, d_query_projected;  // [T, L + R], [T, Q]: before them
    Tensor key_sum, key_term;               // f32 [T, R]
    Tensor norm_workspace;                  // u8
  };
  // Of one sequence: latents and turned keys, and the parts of Wkv_up by head, as of when it was
  // made or cleared.
  class Cache final : public MixerCache {
   public:
    Cache(Device& device, const LatentAttentionMixer& mixer, std::int64_t max_length);
    void clear() override;

    Tensor rows;                                       // [max_length, L + R]
    std::vector<kernels::PackedWeight> key_weights;    // by head: [N, L]
    std::vector<kernels::PackedWeight> value_weights;  // by head: [V, L]

   private:
    const LatentAttentionMixer& mixer_;
  };
  struct ExtendScratch final : MixerScratch {
    ExtendScratch(Device& device, const ModelConfig& model, DType compute, std::int64_t num_tokens,
                  std::int64_t max_length);
    Tensor query_projected, query_rstd, query_normed;  // only with q_rank
    Tensor projected, rstd;                            // [num_tokens, L + R]
    Tensor q;                                          // [num_tokens, A D]
    Tensor absorbed, out;                              // [num_tokens, A (L + R)]
    Tensor output;                                     // [num_tokens, A V]
    Tensor lse;                                        // f32 [num_tokens, A]
    Tensor first_keys, end_keys;                       // i32 [num_tokens]
    Tensor workspace;                                  // of the attention kernel
  };

  // Registers `prefix`.kv_down.weight [L + R, H], .kv_norm.weight [L], .kv_up.weight [A (N + V), L]
  // (rows: N, then V of each head), .output.weight [H, A V] and .query.weight [A D, H] or, with
  // q_rank, .query_down.weight [Q, H], .query_norm.weight [Q] and .query_up.weight [A D, Q].
  LatentAttentionMixer(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                       DType compute);

  std::string_view kind() const override { return "latent_attention"; }
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
  // Without the attention: what it returned is in `saved`.
  void rebuild(const TensorView& x, const TensorView& y, const MixerRecord& saved,
               MixerRecord& derived, const LayerContext& context) const override;
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                const MixerRecord& saved, const MixerRecord& derived,
                const LayerContext& context) const override;
  void extend(const TensorView& x, const TensorView& y, std::int64_t num_cached, MixerCache& cache,
              const LayerContext& context) const override;

 private:
  void turn(const TensorView& x, kernels::Rotation rotation, const LayerContext& context) const;
  void turn_queries(const TensorView& q, kernels::Rotation rotation,
                    const LayerContext& context) const;
  // Queries, turned.
  void project_queries(const TensorView& x, const TensorView& projected, const TensorView& rstd,
                       const TensorView& normed, const TensorView& q,
                       const LayerContext& context) const;
  void project(const TensorView& x, Derived& derived, Scratch& scratch,
               const LayerContext& context) const;
  void write_output(const TensorView& out, const TensorView& output, const TensorView& y) const;
  void queries_backward(const TensorView& x, const TensorView& dx, const Derived& derived,
                        Scratch& scratch, const LayerContext& context) const;
  void keys_backward(const TensorView& x, const TensorView& dx, const Derived& derived,
                     Scratch& scratch, const LayerContext& context) const;

  Device& device_;
  const Mesh& mesh_;
  ModelConfig model_;
  DType compute_;
  Parameter* query_down_;  // null: none
  Parameter* query_norm_;
  Parameter& query_;
  Parameter& kv_down_;
  Parameter& kv_norm_;
  Parameter& kv_up_;
  Parameter& output_;
  kernels::PackedWeight packed_query_down_, packed_query_, packed_kv_down_, packed_kv_up_,
      packed_output_;
};

}  // namespace switchyard
