// Key `model` of a configuration.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/attention/key_pattern.hpp"
#include "kernels/rows/rope.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

// How a layer lets tokens learn of each other (docs/mixers.md). full: attention to all tokens
// before; window: to the last `window` tokens; blocks: by a pattern of blocks; segment: to the
// query's segment and a memory before it; hierarchical: to blocks that each query chooses, to
// summaries of blocks; lsh: to tokens with a like hash; conv_attention: all, but
// for some heads, which are convolutions. The others know a state of fixed size of
// them.
enum class MixerKind : std::uint8_t {
  full,
  window,
  blocks,
  segment,
  hierarchical,
  lsh,
  conv_attention,
  linear,
  retention,
  lightning,
  ssd,
  delta,
  gated_delta,
  infini,
};
constexpr std::array<std::string_view, 14> choice_names(MixerKind) {
  return {"full", "window",         "blocks",      "segment",   "hierarchical",
          "lsh",  "conv_attention", "linear",      "retention", "lightning",
          "ssd",  "delta",          "gated_delta", "infini"};
}

// What queries and keys of linear attention become: elu + 1, the second Taylor polynomial of the
// exponential (kernels/recurrence/feature_map.hpp), or random features of it
// (kernels/recurrence/random_features.hpp).
enum class LinearFeatures : std::uint8_t { elu, taylor, performer };
constexpr std::array<std::string_view, 3> choice_names(LinearFeatures) {
  return {"elu", "taylor", "performer"};
}

// Which tokens a layer of kind blocks attends to (kernels/attention/key_pattern.hpp): those of a
// Sparse Transformer, or of BigBird in a causal form.
enum class BlockPattern : std::uint8_t { bigbird, fixed, strided };
constexpr std::array<std::string_view, 3> choice_names(BlockPattern) {
  return {"bigbird", "fixed", "strided"};
}

// How tokens learn of their place. rope: queries and keys of attention are turned by it
// (kernels/rows/rope.hpp); absolute, sinusoidal: a vector is added to the embedding, learned or of
// sines and cosines (model/position_embedding.hpp); alibi: scores of attention are lowered by
// distance; relative: a learned number by distance is added to them
// (model/mixers/relative_bias.hpp); xl: queries meet a key of the distance, too
// (model/mixers/distance_keys.hpp); none: from the causal mask alone.
enum class PositionKind : std::uint8_t { rope, none, absolute, sinusoidal, alibi, relative, xl };
constexpr std::array<std::string_view, 7> choice_names(PositionKind) {
  return {"rope", "none", "absolute", "sinusoidal", "alibi", "relative", "xl"};
}

// What layers without experts have behind the mixer: a SwiGLU of model.dense_intermediate, or
// nothing, so that the layer is its mixer alone.
enum class FeedForwardKind : std::uint8_t { dense, none };
constexpr std::array<std::string_view, 2> choice_names(FeedForwardKind) {
  return {"dense", "none"};
}

// What stands for a whole block of tokens in a layer of kind hierarchical: nothing, or the mean of
// its keys with the mean of its values, or learned sums of them (model/mixers/block_summaries.hpp).
enum class BlockSummary : std::uint8_t { none, mean, linear };
constexpr std::array<std::string_view, 3> choice_names(BlockSummary) {
  return {"none", "mean", "linear"};
}

// How the window, the chosen blocks and the summaries of a layer of kind hierarchical come
// together: under one softmax, or each under its own, weighed by gates
// (model/mixers/branch_gates.hpp).
enum class BranchCombination : std::uint8_t { one_softmax, gates };
constexpr std::array<std::string_view, 2> choice_names(BranchCombination) {
  return {"union", "gates"};
}

// What a segment's loss teaches the tokens of the memory before it: nothing (Transformer-XL: the
// weights that make keys and values of them learn alone), or all.
enum class SegmentGradient : std::uint8_t { stop, through };
constexpr std::array<std::string_view, 2> choice_names(SegmentGradient) {
  return {"stop", "through"};
}

// Which RMSNorm queries and keys go through before they turn (model/mixers/query_key_norm.hpp).
enum class QkNorm : std::uint8_t { none, head, whole };
constexpr std::array<std::string_view, 3> choice_names(QkNorm) {
  return {"none", "head", "whole"};
}

// What a layer does with the activations that its backward pass reads (model/layer_records.hpp).
enum class LayerPolicy : std::uint8_t { keep, recompute, spill };
constexpr std::array<std::string_view, 3> choice_names(LayerPolicy) {
  return {"keep", "recompute", "spill"};
}

// The mixer of one layer.
struct MixerConfig {
  MixerKind kind = MixerKind::full;
  std::int64_t window = 0;   // tokens, the query's own included
  std::int64_t globals = 0;  // first tokens of a document, seen beside the window
  std::int64_t sinks = 0;    // learned logits a head that take a share of the softmax
  std::int64_t slots = 0;    // learned keys and values that every query sees
  // Of windows: each head learns how far it looks, the edge being a ramp of so many tokens (0: all
  // see the whole window), and what the loss has for each token of the mean span.
  std::int64_t ramp = 0;
  double span_weight = 0;
  // Of kind blocks. bigbird: blocks of `block` tokens, so many in the window (the query's own among
  // them), first of the document, and drawn; fixed and strided: `stride` tokens, and of fixed the
  // last `summary` of each.
  BlockPattern pattern = BlockPattern::bigbird;
  std::int64_t block = 64;
  std::int64_t window_blocks = 3;
  std::int64_t global_blocks = 2;
  std::int64_t random_blocks = 3;
  std::int64_t stride = 128;
  std::int64_t summary = 8;
  // Of kind hierarchical, with block and window_blocks: so many blocks before the window that each
  // query of a kv head chooses, and what every query sees of all of them (of linear: `summary` sums
  // of each).
  std::int64_t selected = 0;
  BlockSummary summaries = BlockSummary::none;
  BranchCombination combine = BranchCombination::one_softmax;
  // Of kind conv_attention: heads that are convolutions, and their taps.
  std::int64_t conv_heads = 0;
  std::int64_t width = 9;
  // Of kind lsh, with window: buckets of a round of hashing, and rounds.
  std::int64_t buckets = 64;
  std::int64_t rounds = 1;
  // Of kind segment, in tokens.
  std::int64_t length = 256;
  std::int64_t memory = 256;
  SegmentGradient gradient = SegmentGradient::stop;
  std::int64_t compressed = 0;  // pooled rows that are seen of what left the memory
  std::int64_t ratio = 4;       // rows that are pooled to one
  std::int64_t conv = 0;        // taps of a convolution over queries, keys and values; 0: none
  // Of recurrent kinds.
  std::int64_t heads = 0;                         // 0: num_heads
  std::int64_t groups = 0;                        // heads of queries and keys; 0: heads, of ssd 1
  std::int64_t key_width = 0;                     // of a head; 0: that of attention's heads
  std::int64_t value_width = 0;                   // likewise
  std::int64_t chunk = 64;                        // tokens that are computed together
  bool negative_eigenvalues = false;              // delta rule: betas up to 2
  LinearFeatures features = LinearFeatures::elu;  // of linear
  std::int64_t num_features = 0;  // of performer, of a head; 0: four times the key width
  std::int64_t feature_seed = 0;  // likewise: which directions
  std::int64_t segment = 0;       // of infini: tokens that attend to each other

  bool is_attention() const {
    return kind == MixerKind::full || kind == MixerKind::window ||
           kind == MixerKind::conv_attention || has_blocks();
  }
  // Of kind conv_attention: what the other heads do.
  MixerConfig attention_part() const {
    MixerConfig part = *this;
    part.kind = MixerKind::full;
    return part;
  }
  // Whether attention looks by blocks of tokens, or by classes.
  bool has_blocks() const {
    return kind == MixerKind::blocks || kind == MixerKind::segment ||
           kind == MixerKind::hierarchical || kind == MixerKind::lsh;
  }
  // Whether keys are the queries themselves, of length 1.
  bool shares_keys() const { return kind == MixerKind::lsh; }
  bool has_gates() const { return combine == BranchCombination::gates; }
  bool stops_gradient() const {
    return kind == MixerKind::segment && memory > 0 && gradient == SegmentGradient::stop;
  }
  bool has_delta_rule() const { return kind == MixerKind::delta || kind == MixerKind::gated_delta; }
  // Of attention; 0: no limit
  std::int64_t effective_window() const { return kind == MixerKind::window ? window : 0; }
  // Of attention, in a layer of this number.
  kernels::KeyPattern key_pattern(std::int64_t layer) const;
  bool operator==(const MixerConfig&) const = default;
};

inline kernels::KeyPattern MixerConfig::key_pattern(std::int64_t layer) const {
  if (!has_blocks()) return {effective_window(), globals};
  if (kind == MixerKind::segment) {
    kernels::KeyPattern keys(length + memory);
    keys.block = length;
    return keys;
  }
  if (kind == MixerKind::lsh) {
    kernels::KeyPattern keys;
    keys.hash_rounds = rounds;
    keys.num_buckets = buckets;
    keys.class_window = window;
    return keys;
  }
  if (kind == MixerKind::hierarchical) {
    kernels::KeyPattern keys(window_blocks * block);
    keys.block = block;
    keys.chosen_blocks = selected;
    if (summaries != BlockSummary::none)
      keys.summaries = summaries == BlockSummary::linear ? summary : 1;
    return keys;
  }
  if (pattern == BlockPattern::bigbird) {
    kernels::KeyPattern keys(window_blocks * block, global_blocks * block);
    keys.block = block;
    keys.random_blocks = random_blocks;
    keys.random_stream = layer;
    return keys;
  }
  kernels::KeyPattern keys(stride);
  if (pattern == BlockPattern::strided) {
    keys.stride = stride;
  } else {
    keys.block = stride;
    keys.summary = summary;
  }
  return keys;
}

// How rotary frequencies stretch to sequences longer than those trained on (kernels/rows/rope.hpp).
struct RopeScalingConfig {
  kernels::RopeScaling kind = kernels::RopeScaling::none;
  double factor = 1;                 // how many times longer
  std::int64_t original_length = 0;  // yarn, llama3: positions before scaling
  double beta_fast = 32;             // yarn, llama3: turns over original_length
  double beta_slow = 1;
  bool truncate = true;  // yarn: the ramp begins and ends at whole indices
  // yarn as DeepSeek-V2 has it, with m(s) = 0.1 s ln(factor) + 1; 0: not so. cos and sin are
  // multiplied by m(mscale) / m(mscale_all_dim), scores of latent attention by m(mscale_all_dim)^2.
  double mscale = 0;
  double mscale_all_dim = 0;
};

// Multi-head latent attention (model/mixers/latent_attention.hpp), in elements.
struct LatentConfig {
  std::int64_t kv_rank = 0;  // of the vector that keys and values are made of; 0: other attention
  std::int64_t q_rank = 0;   // of the one that queries are made of; 0: of the token itself
  std::int64_t nope_dim = 128;  // of a head's query and key: without positions
  std::int64_t rope_dim = 64;   // with them
  std::int64_t value_dim = 128;
};

struct PositionConfig {
  PositionKind kind = PositionKind::rope;
  // Of relative positions: each of the first buckets / 2 distances has a bucket, those up to
  // max_distance share the others, and what is farther shares the last.
  std::int64_t buckets = 32;
  std::int64_t max_distance = 128;
};

struct ModelConfig {
  std::int64_t vocab_size = 0;  // 0: the tokenizer's; larger than the tokenizer's is padding
  std::int64_t hidden = 256;
  std::int64_t num_layers = 4;
  std::int64_t num_heads = 4;
  std::int64_t num_kv_heads = 2;
  std::int64_t head_dim = 0;  // 0: hidden / num_heads
  std::int64_t sequence_length = 256;
  double rope_base = 10000;
  RopeScalingConfig rope_scaling = {};
  PositionConfig position = {};
  std::vector<MixerConfig> mixer = {{}};  // repeated over the layers
  bool qkv_bias = false;
  bool output_bias = false;  // of attention
  QkNorm qk_norm = QkNorm::none;
  double clip_qkv = 0;  // queries, keys and values are held within +- this; 0: not
  LatentConfig latent = {};
  bool tie_embeddings = false;
  double norm_epsilon = 1e-6;
  FeedForwardKind feed_forward = FeedForwardKind::dense;  // of layers without experts
  std::int64_t dense_intermediate = 1024;                 // likewise
  double embedding_dropout = 0;
  double residual_dropout = 0;  // of what attention and feed-forward add to the residual
  double initial_std = 0.02;    // of weights; those that write to the residual: / sqrt(2 layers)
  double embedding_std = 0;     // of the embedding; 0: initial_std

  bool turns_positions() const { return position.kind == PositionKind::rope; }
  // Whether scores depend on distances.
  bool scores_distances() const {
    return position.kind == PositionKind::alibi || position.kind == PositionKind::relative ||
           has_distance_keys();
  }
  bool has_distance_keys() const { return position.kind == PositionKind::xl; }
  bool adds_positions() const {
    return position.kind == PositionKind::absolute || position.kind == PositionKind::sinusoidal;
  }
  double effective_embedding_std() const { return embedding_std > 0 ? embedding_std : initial_std; }
  const MixerConfig& mixer_of_layer(std::int64_t layer) const {
    return mixer[static_cast<std::size_t>(layer) % mixer.size()];
  }
  bool has_convolution() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).conv > 0) return true;
    return false;
  }
  bool has_spans() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).ramp > 0) return true;
    return false;
  }
  bool has_compressed_memory() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).compressed > 0) return true;
    return false;
  }
  bool has_slots() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).slots > 0) return true;
    return false;
  }
  bool has_blocks() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).has_blocks()) return true;
    return false;
  }
  bool has_hierarchical() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).kind == MixerKind::hierarchical) return true;
    return false;
  }
  bool has_conv_heads() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).kind == MixerKind::conv_attention) return true;
    return false;
  }
  bool has_classes() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).kind == MixerKind::lsh) return true;
    return false;
  }
  kernels::KeyPattern key_pattern_of_layer(std::int64_t layer) const {
    return mixer_of_layer(layer).key_pattern(layer);
  }
  bool has_globals() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (mixer_of_layer(layer).globals > 0) return true;
    return false;
  }
  bool has_recurrent_mixer() const {
    for (std::int64_t layer = 0; layer < num_layers; ++layer)
      if (!mixer_of_layer(layer).is_attention()) return true;
    return false;
  }
  bool has_latent_attention() const { return latent.kv_rank > 0; }
  std::int64_t effective_head_dim() const {
    if (has_latent_attention()) return latent.nope_dim + latent.rope_dim;
    return head_dim > 0 ? head_dim : hidden / num_heads;
  }
  // Columns of the queries and of the keys of all heads.
  std::int64_t query_cols() const { return num_heads * effective_head_dim(); }
  std::int64_t key_cols() const { return num_kv_heads * effective_head_dim(); }
  // Elements of a head that turn.
  std::int64_t rope_dim() const {
    return has_latent_attention() ? latent.rope_dim : effective_head_dim();
  }
};

}  // namespace switchyard
