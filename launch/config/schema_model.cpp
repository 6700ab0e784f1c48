// The keys of the sections data and model.
#include <utility>

#include "launch/config/schema_fields.hpp"

namespace switchyard {
namespace {

void add_rope_scaling(std::vector<Key>& keys) {
  using C = RopeScalingConfig;
  constexpr auto s = &Config::model;
  constexpr auto g = &ModelConfig::rope_scaling;
  keys.push_back({.section = "model",
                  .name = "rope_scaling.kind",
                  .field = field<s, g, &C::kind>(),
                  .description =
                      "How rotary frequencies stretch to sequences longer than those "
                      "that the model was trained on: positions divided by `factor`, "
                      "another base, or by part of the spectrum, as YaRN and Llama 3.1 do "
                      "it."});
  keys.push_back({.section = "model",
                  .name = "rope_scaling.factor",
                  .field = field<s, g, &C::factor>(),
                  .range = from(1, million),
                  .description = "How many times longer sequences are to become."});
  keys.push_back({.section = "model",
                  .name = "rope_scaling.original_length",
                  .field = field<s, g, &C::original_length>(),
                  .unit = "tokens",
                  .range = from(0, most_tokens),
                  .description = "With `yarn` and `llama3`: the sequence length before scaling."});
  keys.push_back({.section = "model",
                  .name = "rope_scaling.beta_fast",
                  .field = field<s, g, &C::beta_fast>(),
                  .unit = "turns",
                  .range = above(0),
                  .description =
                      "With `yarn` and `llama3`: pairs that turn more often than that over "
                      "`original_length` keep their frequency (Llama 3.1: 4, which it "
                      "calls high_freq_factor)."});
  keys.push_back({.section = "model",
                  .name = "rope_scaling.beta_slow",
                  .field = field<s, g, &C::beta_slow>(),
                  .unit = "turns",
                  .range = above(0),
                  .description =
                      "With `yarn` and `llama3`: pairs that turn less often are scaled in "
                      "full (low_freq_factor)."});
}

void add_rope_scaling_of_deepseek(std::vector<Key>& keys) {
  using C = RopeScalingConfig;
  constexpr auto s = &Config::model;
  constexpr auto g = &ModelConfig::rope_scaling;
  keys.push_back({.section = "model",
                  .name = "rope_scaling.truncate",
                  .field = field<s, g, &C::truncate>(),
                  .description = "With `yarn`: whether the ramp between the two begins and ends at "
                                 "whole pairs (gpt-oss: `false`)."});
  keys.push_back({.section = "model",
                  .name = "rope_scaling.mscale",
                  .field = field<s, g, &C::mscale>(),
                  .range = from(0, 1000),
                  .description =
                      "With `yarn` and `mscale_all_dim`, as DeepSeek-V2 has them: cos and "
                      "sin are multiplied by m(`mscale`) / m(`mscale_all_dim`), with "
                      "m(s) = 0.1 s ln(`factor`) + 1; 0: by m(1)."});
  keys.push_back({.section = "model",
                  .name = "rope_scaling.mscale_all_dim",
                  .field = field<s, g, &C::mscale_all_dim>(),
                  .range = from(0, 1000),
                  .description = "See `mscale`; scores of `model.latent` are multiplied by its "
                                 "m^2."});
}

void add_latent(std::vector<Key>& keys) {
  using C = LatentConfig;
  constexpr auto s = &Config::model;
  constexpr auto g = &ModelConfig::latent;
  keys.push_back({.section = "model",
                  .name = "latent.kv_rank",
                  .field = field<s, g, &C::kv_rank>(),
                  .unit = "elements",
                  .range = from(0, million),
                  .description = "Width of the vector that a token's keys and values are made of "
                                 "(multi-head latent attention, DeepSeek-V2), all that generation "
                                 "keeps beside one shared key; 0: attention without it."});
  keys.push_back({.section = "model",
                  .name = "latent.q_rank",
                  .field = field<s, g, &C::q_rank>(),
                  .unit = "elements",
                  .range = from(0, million),
                  .description = "Width of the vector that queries are made of; 0: they are made "
                                 "of the token itself."});
  keys.push_back({.section = "model",
                  .name = "latent.nope_dim",
                  .field = field<s, g, &C::nope_dim>(),
                  .unit = "elements",
                  .range = from(1, 10'000),
                  .description = "Of a head's query and key: the part without positions."});
  keys.push_back({.section = "model",
                  .name = "latent.rope_dim",
                  .field = field<s, g, &C::rope_dim>(),
                  .unit = "elements",
                  .range = from(2, 10'000),
                  .description = "The part that turns; its key is shared by all heads."});
  keys.push_back({.section = "model",
                  .name = "latent.value_dim",
                  .field = field<s, g, &C::value_dim>(),
                  .unit = "elements",
                  .range = from(1, 10'000),
                  .description = "Of a head's value; at most `nope_dim` + `rope_dim`."});
}

}  // namespace

void add_data(std::vector<Key>& keys) {
  using C = DataConfig;
  constexpr auto s = &Config::data;
  keys.push_back({.section = "data",
                  .name = "path",
                  .field = field<s, &C::path>(),
                  .unit = "path",
                  .description = "Token file written by `switchyard prepare`. Its tokenizer is the "
                                 "run's, its validation split is evaluated, and its training split "
                                 "is trained on unless there is a `mixture`.",
                  .is_required = true});
  keys.push_back({.section = "data",
                  .name = "mixture",
                  .field = field<s, &C::mixture>(),
                  .unit = "none or corpora",
                  .description =
                      "Corpora to train on together: `\"web.h5 0.7, code.h5 0.3\"`, each "
                      "with its weight, or `\"web.h5 1 epoch, code.h5 4 epochs\"`. "
                      "`none`: `path` alone."});
  keys.push_back({.section = "data",
                  .name = "loss_mask",
                  .field = field<s, &C::loss_mask>(),
                  .description = "Whether tokens count in the loss, in training and evaluation, as "
                                 "the token file's loss mask says (`prepare --prompt-field`). "
                                 "Token files without one count all."});
  keys.push_back({.section = "data",
                  .name = "document_mask",
                  .field = field<s, &C::document_mask>(),
                  .description = "Whether the documents packed into a sequence are kept apart: no "
                                 "token attends to another document."});
  keys.push_back({.section = "data",
                  .name = "restart_positions",
                  .field = field<s, &C::restart_positions>(),
                  .description = "Whether rotary positions count from the beginning of each "
                                 "document instead of the sequence's."});
}

void add_model(std::vector<Key>& keys) {
  using C = ModelConfig;
  constexpr auto s = &Config::model;
  keys.push_back({.section = "model",
                  .name = "vocab_size",
                  .field = field<s, &C::vocab_size>(),
                  .unit = "tokens",
                  .range = from(0, most_tokens),
                  .description = "Rows of the embedding; 0: the tokenizer's. A larger number than "
                                 "the tokenizer's is padding."});
  keys.push_back({.section = "model",
                  .name = "hidden",
                  .field = field<s, &C::hidden>(),
                  .unit = "elements",
                  .range = from(1, million),
                  .description = "Width of the residual stream."});
  keys.push_back({.section = "model",
                  .name = "num_layers",
                  .field = field<s, &C::num_layers>(),
                  .unit = "layers",
                  .range = from(1, 10'000),
                  .description = "Blocks of attention and feed-forward."});
  keys.push_back({.section = "model",
                  .name = "num_heads",
                  .field = field<s, &C::num_heads>(),
                  .unit = "heads",
                  .range = from(1, 10'000),
                  .description = "Query heads of attention."});
  keys.push_back({.section = "model",
                  .name = "num_kv_heads",
                  .field = field<s, &C::num_kv_heads>(),
                  .unit = "heads",
                  .range = from(1, 10'000),
                  .description =
                      "Key and value heads; divides `num_heads`. Equal to it: multi-head "
                      "attention; less: grouped-query attention; 1: multi-query."});
  keys.push_back({.section = "model",
                  .name = "head_dim",
                  .field = field<s, &C::head_dim>(),
                  .unit = "elements",
                  .range = from(0, 10'000),
                  .description = "Width of a head, an even number; 0: `hidden` / `num_heads`."});
  keys.push_back({.section = "model",
                  .name = "sequence_length",
                  .field = field<s, &C::sequence_length>(),
                  .unit = "tokens",
                  .range = from(1, most_tokens),
                  .description = "Tokens of a training sequence."});
  keys.push_back({.section = "model",
                  .name = "rope_base",
                  .field = field<s, &C::rope_base>(),
                  .range = above(1),
                  .description = "Base of the rotary position embedding."});
  add_rope_scaling(keys);
  add_rope_scaling_of_deepseek(keys);
  add_latent(keys);
  keys.push_back({.section = "model",
                  .name = "position.kind",
                  .field = field<s, &ModelConfig::position, &PositionConfig::kind>(),
                  .description =
                      "How tokens learn of their place: `rope`, queries and keys of attention are "
                      "turned by it; `absolute`, a learned vector of each of the `sequence_length` "
                      "positions is added to the embedding; `sinusoidal`, one of sines and cosines "
                      "is; `alibi`, scores of attention are lowered by distance, at a rate of each "
                      "head; `relative`, each head of each layer adds to them a learned number by "
                      "bucket of distance (T5); `xl`, queries meet a key of each distance, too "
                      "(Transformer-XL); `none`, from the causal mask alone."});
  keys.push_back({.section = "model",
                  .name = "position.buckets",
                  .field = field<s, &ModelConfig::position, &PositionConfig::buckets>(),
                  .unit = "buckets",
                  .range = from(2, 4'096),
                  .description = "Of `relative`: learned numbers of a head. Half of them are for "
                                 "one distance each."});
  keys.push_back({.section = "model",
                  .name = "position.max_distance",
                  .field = field<s, &ModelConfig::position, &PositionConfig::max_distance>(),
                  .unit = "tokens",
                  .range = from(2, most_tokens),
                  .description = "Of `relative`: the other buckets grow up to this distance; what "
                                 "is farther shares the last."});
  add_mixer(keys);
  keys.push_back({.section = "model",
                  .name = "qkv_bias",
                  .field = field<s, &C::qkv_bias>(),
                  .description = "Whether a learned vector is added to queries, keys and values "
                                 "(Qwen2)."});
  keys.push_back({.section = "model",
                  .name = "output_bias",
                  .field = field<s, &C::output_bias>(),
                  .description = "Whether a learned vector is added to what attention returns "
                                 "(gpt-oss)."});
  keys.push_back({.section = "model",
                  .name = "qk_norm",
                  .field = field<s, &C::qk_norm>(),
                  .description = "RMSNorm of queries and keys before they turn: `none`, of each "
                                 "`head` with one gain for all of them (Qwen3), or of the `whole` "
                                 "row (OLMoE)."});
  keys.push_back({.section = "model",
                  .name = "clip_qkv",
                  .field = field<s, &C::clip_qkv>(),
                  .range = from(0, million),
                  .description = "Queries, keys and values of attention are held within plus and "
                                 "minus this, behind their norm and before they turn (OLMoE); 0: "
                                 "they are not."});
  keys.push_back({.section = "model",
                  .name = "tie_embeddings",
                  .field = field<s, &C::tie_embeddings>(),
                  .description = "Whether the output head uses the embedding's weights."});
  keys.push_back({.section = "model",
                  .name = "norm_epsilon",
                  .field = field<s, &C::norm_epsilon>(),
                  .range = above(0),
                  .description = "Added to the mean square in RMSNorm, against division by zero."});
  keys.push_back({.section = "model",
                  .name = "feed_forward",
                  .field = field<s, &C::feed_forward>(),
                  .description =
                      "What layers without experts have behind the mixer: a SwiGLU of "
                      "`dense_intermediate` (`dense`), or nothing (`none`): the layer is its mixer "
                      "alone, as studies of recall have it."});
  keys.push_back({.section = "model",
                  .name = "dense_intermediate",
                  .field = field<s, &C::dense_intermediate>(),
                  .unit = "elements",
                  .range = from(1, million),
                  .description = "Width inside the SwiGLU of layers without experts."});
  keys.push_back({.section = "model",
                  .name = "embedding_dropout",
                  .field = field<s, &C::embedding_dropout>(),
                  .range = rate(),
                  .description = "Share of embedding elements dropped while training."});
  keys.push_back({.section = "model",
                  .name = "residual_dropout",
                  .field = field<s, &C::residual_dropout>(),
                  .range = rate(),
                  .description = "Share dropped of what attention and feed-forward add to the "
                                 "residual stream while training."});
  keys.push_back({.section = "model",
                  .name = "initial_std",
                  .field = field<s, &C::initial_std>(),
                  .range = above(0),
                  .description =
                      "Standard deviation of initial weights; of those that write to the "
                      "residual stream divided by sqrt(2 `num_layers`)."});
  keys.push_back(
      {.section = "model",
       .name = "embedding_std",
       .field = field<s, &C::embedding_std>(),
       .range = from(0),
       .description =
           "Standard deviation of the initial embedding; 0: `initial_std`. With 1 the tokens "
           "of a sequence stay apart in an untrained model, so that its router spreads "
           "them over the experts; the loss then falls more slowly at first."});
}

}  // namespace switchyard
