// Key `model` of a configuration.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

// The attention of one layer.
struct AttentionConfig {
  std::string kind = "full";  // full: all tokens before; window: the last `window` tokens
  std::int64_t window = 0;    // tokens, the query's own included
  std::int64_t sinks = 0;     // learned logits a head that take a share of the softmax

  std::int64_t effective_window() const { return kind == "window" ? window : 0; }  // 0: no limit
  bool operator==(const AttentionConfig&) const = default;
};

// How rotary frequencies stretch to sequences longer than those trained on (kernels/rope.hpp).
struct RopeScalingConfig {
  std::string kind = "none";         // none | linear | ntk | yarn
  double factor = 1;                 // how many times longer
  std::int64_t original_length = 0;  // yarn: positions before scaling
  double beta_fast = 32;             // yarn: turns over original_length
  double beta_slow = 1;
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
  std::vector<AttentionConfig> attention = {{}};  // repeated over the layers
  bool tie_embeddings = false;
  double norm_epsilon = 1e-6;
  std::int64_t dense_intermediate = 1024;  // of layers without experts
  double embedding_dropout = 0;
  double residual_dropout = 0;  // of what attention and feed-forward add to the residual
  double initial_std = 0.02;    // of weights; those that write to the residual: / sqrt(2 layers)
  double embedding_std = 0;     // of the embedding; 0: initial_std

  double effective_embedding_std() const { return embedding_std > 0 ? embedding_std : initial_std; }
  const AttentionConfig& attention_of_layer(std::int64_t layer) const {
    return attention[static_cast<std::size_t>(layer) % attention.size()];
  }
  std::int64_t effective_head_dim() const { return head_dim > 0 ? head_dim : hidden / num_heads; }
};

}  // namespace switchyard
