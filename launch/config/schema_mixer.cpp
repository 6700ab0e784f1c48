// The key model.mixer, a list of entries with keys of their own.
#include "launch/config/schema_fields.hpp"

namespace switchyard {
namespace {

constexpr auto mixer_of = &ModelConfig::mixer;

// Of one entry of model.mixer; the fields reach the first.
template <auto member>
Field mixer_field() {
  return field_at(
      [](Config& config) -> decltype(auto) { return ((config.model.*mixer_of).front().*member); });
}

std::span<const Key> mixer_keys() {
  using C = MixerConfig;
  static const std::vector<Key> keys = {
      {.section = "model",
       .name = "kind",
       .field = mixer_field<&C::kind>(),
       .description = "Attention, or a recurrence."},
      {.section = "model",
       .name = "window",
       .field = mixer_field<&C::window>(),
       .unit = "tokens",
       .range = from(0, most_tokens),
       .description = "Tokens that a token of a window layer attends to, itself included; of `lsh` "
                      "the last so many of its bucket."},
      {.section = "model",
       .name = "globals",
       .field = mixer_field<&C::globals>(),
       .unit = "tokens",
       .range = from(0, most_tokens),
       .description = "First tokens of a document that all later ones of a window layer see."},
      {.section = "model",
       .name = "pattern",
       .field = mixer_field<&C::pattern>(),
       .description = "Of `blocks`: which tokens are seen."},
      {.section = "model",
       .name = "block",
       .field = mixer_field<&C::block>(),
       .unit = "tokens",
       .range = from(1, most_tokens),
       .description = "Of `bigbird` and `hierarchical`: tokens of a block."},
      {.section = "model",
       .name = "window_blocks",
       .field = mixer_field<&C::window_blocks>(),
       .unit = "blocks",
       .range = from(1, 4'096),
       .description = "Likewise: the token's own block and those before it that it sees."},
      {.section = "model",
       .name = "global_blocks",
       .field = mixer_field<&C::global_blocks>(),
       .unit = "blocks",
       .range = from(0, 4'096),
       .description = "Of `bigbird`: first blocks of a document that all its later tokens see."},
      {.section = "model",
       .name = "random_blocks",
       .field = mixer_field<&C::random_blocks>(),
       .unit = "blocks",
       .range = from(0, 64),
       .description = "Of `bigbird`: blocks between those that each block sees, drawn by the "
                      "numbers of layer and block."},
      {.section = "model",
       .name = "stride",
       .field = mixer_field<&C::stride>(),
       .unit = "tokens",
       .range = from(1, most_tokens),
       .description = "Of `fixed`: tokens of a block; of `strided`: the window of the first half "
                      "of the heads, and the distance of what the second half sees."},
      {.section = "model",
       .name = "summary",
       .field = mixer_field<&C::summary>(),
       .unit = "tokens",
       .range = from(1, most_tokens),
       .description = "Of `fixed`: last tokens of a block that all later ones see; of `linear` "
                      "summaries: how many of each block."},
      {.section = "model",
       .name = "selected",
       .field = mixer_field<&C::selected>(),
       .unit = "blocks",
       .range = from(0, 64),
       .description = "Of `hierarchical`: blocks before the window that each token chooses for "
                      "each kv head, by their mean key."},
      {.section = "model",
       .name = "summaries",
       .field = mixer_field<&C::summaries>(),
       .description = "Of `hierarchical`: what each token sees of every block before the window: "
                      "nothing, the mean of its keys and values, or `summary` learned sums."},
      {.section = "model",
       .name = "combine",
       .field = mixer_field<&C::combine>(),
       .description =
           "Of `hierarchical`: the window, chosen blocks and summaries under one softmax, "
           "or under one each, weighed by gates that each token makes (NSA)."},
      {.section = "model",
       .name = "buckets",
       .field = mixer_field<&C::buckets>(),
       .unit = "buckets",
       .range = from(2, 65'536),
       .description = "Of `lsh`: what keys are hashed into; an even number."},
      {.section = "model",
       .name = "rounds",
       .field = mixer_field<&C::rounds>(),
       .unit = "rounds",
       .range = from(1, 64),
       .description = "Of `lsh`: rounds of hashing; a key counts as often as rounds show it."},
      {.section = "model",
       .name = "conv_heads",
       .field = mixer_field<&C::conv_heads>(),
       .unit = "heads",
       .range = from(0, 10'000),
       .description = "Of `conv_attention`: heads that are convolutions in place of attention."},
      {.section = "model",
       .name = "width",
       .field = mixer_field<&C::width>(),
       .unit = "taps",
       .range = from(1, 256),
       .description = "Of `conv_attention`: taps of those convolutions."},
      {.section = "model",
       .name = "length",
       .field = mixer_field<&C::length>(),
       .unit = "tokens",
       .range = from(1, most_tokens),
       .description = "Of `segment`: tokens of a segment, counted from the sequence's first."},
      {.section = "model",
       .name = "memory",
       .field = mixer_field<&C::memory>(),
       .unit = "tokens",
       .range = from(0, most_tokens),
       .description = "Of `segment`: last tokens before a segment that all of it sees."},
      {.section = "model",
       .name = "gradient",
       .field = mixer_field<&C::gradient>(),
       .description = "Of `segment`: whether what the memory taught goes on to the tokens in it "
                      "(`through`) or to the weights alone (`stop`)."},
      {.section = "model",
       .name = "compressed",
       .field = mixer_field<&C::compressed>(),
       .unit = "slots",
       .range = from(0, most_tokens),
       .description = "Of `segment`: of what left the memory, so many pooled rows are seen beside "
                      "it (Compressive Transformer). Needs a position that turns nothing."},
      {.section = "model",
       .name = "ratio",
       .field = mixer_field<&C::ratio>(),
       .unit = "tokens",
       .range = from(1, 1'024),
       .description = "Likewise: rows that are pooled to one, by a learned matrix."},
      {.section = "model",
       .name = "sinks",
       .field = mixer_field<&C::sinks>(),
       .unit = "logits",
       .range = from(0, 1024),
       .description = "Learned logits of each head that take a share of the softmax."},
      {.section = "model",
       .name = "slots",
       .field = mixer_field<&C::slots>(),
       .unit = "slots",
       .range = from(0, 65'536),
       .description = "Learned keys and values of attention that every token sees (persistent "
                      "memory)."},
      {.section = "model",
       .name = "ramp",
       .field = mixer_field<&C::ramp>(),
       .unit = "tokens",
       .range = from(0, most_tokens),
       .description = "Of a window whose heads learn their span (adaptive span): tokens over which "
                      "the edge fades; 0: every head sees the whole window."},
      {.section = "model",
       .name = "span_weight",
       .field = mixer_field<&C::span_weight>(),
       .range = from(0, 1),
       .description = "With `ramp`: the penalty for each token of the mean span of the heads."},
      {.section = "model",
       .name = "conv",
       .field = mixer_field<&C::conv>(),
       .unit = "taps",
       .range = from(0, 64),
       .description = "Taps of a causal convolution over queries, keys and values; 0: none."},
      {.section = "model",
       .name = "heads",
       .field = mixer_field<&C::heads>(),
       .unit = "heads",
       .range = from(0, 10'000),
       .description = "Heads of a recurrence; 0: `num_heads`."},
      {.section = "model",
       .name = "groups",
       .field = mixer_field<&C::groups>(),
       .unit = "heads",
       .range = from(0, 10'000),
       .description = "Heads of queries and keys; 0: as many as of values, of `ssd` 1."},
      {.section = "model",
       .name = "key_width",
       .field = mixer_field<&C::key_width>(),
       .unit = "elements",
       .range = from(0, 1'024),
       .description = "Width of queries and keys of a head (Mamba's state); 0: `head_dim`."},
      {.section = "model",
       .name = "value_width",
       .field = mixer_field<&C::value_width>(),
       .unit = "elements",
       .range = from(0, 1'024),
       .description = "Width of values of a head; 0: `head_dim`."},
      {.section = "model",
       .name = "chunk",
       .field = mixer_field<&C::chunk>(),
       .unit = "tokens",
       .range = from(1, 1'024),
       .description = "Tokens of a recurrence that are computed together."},
      {.section = "model",
       .name = "negative_eigenvalues",
       .field = mixer_field<&C::negative_eigenvalues>(),
       .description = "Of the delta rule: betas go up to 2."},
      {.section = "model",
       .name = "features",
       .field = mixer_field<&C::features>(),
       .description = "Of `linear`: what queries and keys become, elu + 1, the second Taylor "
                      "polynomial of the exponential, or random features of it (`performer`)."},
      {.section = "model",
       .name = "num_features",
       .field = mixer_field<&C::num_features>(),
       .range = from(0, 65'536),
       .description = "Random features of a head; 0: four times `key_width`."},
      {.section = "model",
       .name = "feature_seed",
       .field = mixer_field<&C::feature_seed>(),
       .range = from(0, 1'000'000'000),
       .description = "Which random features: they are drawn once and not trained."},
      {.section = "model",
       .name = "segment",
       .field = mixer_field<&C::segment>(),
       .unit = "tokens",
       .range = from(0, 65'536),
       .description = "Of `infini`: tokens that attend to each other; those before are a memory of "
                      "fixed size."},
  };
  return keys;
}

}  // namespace

void add_mixer(std::vector<Key>& keys) {
  constexpr auto s = &Config::model;
  keys.push_back(
      {.section = "model",
       .name = "mixer",
       .field = field<s, mixer_of>(),
       .elements = mixer_keys(),
       .description =
           "How the layers let tokens learn of each other (docs/mixers.md): one entry, "
           "or a list that is repeated over the layers. `kind`: attention to all tokens "
           "before (`full`) or to the last `window` tokens, the token itself included "
           "(`window`) and the first `globals` of the document, or to blocks of them by a "
           "`pattern` (`blocks`), or to a segment and the memory before it (`segment`), or to "
           "blocks that "
           "each token chooses and to summaries (`hierarchical`), or to tokens whose keys have "
           "the same hash (`lsh`), or with some heads that are convolutions (`conv_attention`), "
           "with "
           "`sinks`, learned logits of each head that take a share of "
           "the softmax; or a recurrence with a state of fixed size: linear attention "
           "(`linear`), `retention`, `lightning`, Mamba-2 (`ssd`), DeltaNet (`delta`), "
           "gated DeltaNet (`gated_delta`), with `heads` of `key_width` and "
           "`value_width`, `groups` of them sharing queries and keys. All kinds may have "
           "a convolution of `conv` taps in front. `model.attention` is its old name."});
}

}  // namespace switchyard
