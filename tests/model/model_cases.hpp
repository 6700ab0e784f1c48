// The small models of the tests of model/: each shows a part of what a configuration can say.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "experts/config.hpp"
#include "model/config.hpp"

namespace switchyard::test {

struct ModelCase {
  std::string name;
  ModelConfig model;
  ExpertsConfig experts;
  std::int64_t vocab_size_used = 0;
};

// Grouped queries, sizes that divide nothing, padded vocabulary, dense and expert layers mixed.
inline ModelCase mixed_case() {
  ModelCase c{.name = "mixed", .model = {}, .experts = {}, .vocab_size_used = 29};
  c.model.vocab_size = 37;
  c.model.hidden = 20;
  c.model.num_layers = 2;
  c.model.num_heads = 6;
  c.model.num_kv_heads = 3;
  c.model.head_dim = 6;
  c.model.dense_intermediate = 27;
  c.model.initial_std = 0.2;
  c.experts.num_experts = 5;
  c.experts.top_k = 2;
  c.experts.intermediate = 11;
  c.experts.every = 2;
  c.experts.balance_weight = 0.3;
  c.experts.z_weight = 0.02;
  return c;
}

inline ModelCase all_experts_case() {
  ModelCase c = mixed_case();
  c.name = "all_experts";
  c.experts.every = 1;
  c.experts.top_k = 3;
  c.experts.normalize_top_k = false;
  c.experts.balance_reduction = BalanceReduction::mean;
  c.model.num_kv_heads = 1;
  return c;
}

inline ModelCase dense_case() {
  ModelCase c = mixed_case();
  c.name = "dense";
  c.experts.every = 0;
  c.model.num_kv_heads = 6;
  return c;
}

inline ModelCase tied_case() {
  ModelCase c = mixed_case();
  c.name = "tied";
  c.model.tie_embeddings = true;
  return c;
}

// Those mixers in place of plain attention.
inline ModelCase mixers_case(std::string name, std::vector<MixerConfig> mixers) {
  ModelCase c = mixed_case();
  c.name = std::move(name);
  c.model.mixer = std::move(mixers);
  return c;
}

inline ModelCase windows_case() {
  ModelCase c = mixers_case("windows", {{.kind = MixerKind::window, .window = 3, .sinks = 2},
                                        {.kind = MixerKind::full, .window = 0, .sinks = 1}});
  c.model.rope_scaling.kind = kernels::RopeScaling::linear;
  c.model.rope_scaling.factor = 4;
  return c;
}

inline ModelCase position_case(PositionKind kind) {
  ModelCase c = mixed_case();
  c.name = "position_" + std::string(name_of(kind));
  c.model.position.kind = kind;
  c.model.sequence_length = 600;
  c.model.embedding_dropout = 0.2;
  if (kind == PositionKind::relative)  // several distances in a bucket, and some beyond
    c.model.position = {.kind = kind, .buckets = 5, .max_distance = 6};
  if (kind == PositionKind::none) c.model.head_dim = 5;  // no pairs to turn
  return c;
}

// Windows beside the first tokens, of one layer with sinks, too.
inline ModelCase globals_case() {
  return mixers_case("globals", {{.kind = MixerKind::window, .window = 2, .globals = 1, .sinks = 1},
                                 {.kind = MixerKind::window, .window = 3, .globals = 2}});
}

// Spans that are learned, in one layer of two.
inline ModelCase spans_case() {
  return mixers_case("spans",
                     {{.kind = MixerKind::window, .window = 6, .sinks = 1, .ramp = 3}, {}});
}

// Memory slots: with sinks, and beside windows.
inline ModelCase slots_case() {
  return mixers_case(
      "slots", {{.kind = MixerKind::window, .window = 3, .sinks = 1, .slots = 3}, {.slots = 1}});
}

// Patterns of blocks, small enough that short sequences have several.
inline ModelCase blocks_case() {
  return mixers_case("blocks", {{.kind = MixerKind::blocks,
                                 .sinks = 1,
                                 .block = 1,
                                 .window_blocks = 1,
                                 .global_blocks = 1,
                                 .random_blocks = 1},
                                {.kind = MixerKind::blocks,
                                 .pattern = BlockPattern::fixed,
                                 .stride = 3,
                                 .summary = 1,
                                 .conv = 2}});
}

// Heads whose halves see differently.
inline ModelCase strided_case() {
  ModelCase c = mixers_case(
      "strided",
      {{.kind = MixerKind::blocks, .sinks = 1, .pattern = BlockPattern::strided, .stride = 2},
       {.kind = MixerKind::blocks, .slots = 2, .pattern = BlockPattern::strided, .stride = 3}});
  c.model.num_kv_heads = 2;
  return c;
}

// Blocks that are chosen, and beside them or alone the means of all: with convolution, sinks,
// slots.
inline ModelCase hierarchical_case() {
  return mixers_case("hierarchical", {{.kind = MixerKind::hierarchical,
                                       .sinks = 1,
                                       .block = 1,
                                       .window_blocks = 1,
                                       .selected = 2,
                                       .conv = 2},
                                      {.kind = MixerKind::hierarchical,
                                       .slots = 1,
                                       .block = 2,
                                       .window_blocks = 1,
                                       .selected = 1,
                                       .summaries = BlockSummary::mean}});
}

// A causal form of Linformer, alone and beside blocks that are chosen.
inline ModelCase linformer_case() {
  return mixers_case("linformer", {{.kind = MixerKind::hierarchical,
                                    .block = 2,
                                    .window_blocks = 1,
                                    .summary = 3,
                                    .summaries = BlockSummary::linear},
                                   {.kind = MixerKind::hierarchical,
                                    .block = 1,
                                    .window_blocks = 2,
                                    .summary = 2,
                                    .selected = 1,
                                    .summaries = BlockSummary::linear}});
}

// Native sparse attention: three branches, gated.
inline ModelCase gates_case() {
  ModelCase c = hierarchical_case();
  c.name = "gates";
  c.model.mixer = {{.kind = MixerKind::hierarchical,
                    .block = 1,
                    .window_blocks = 2,
                    .selected = 2,
                    .summaries = BlockSummary::mean,
                    .combine = BranchCombination::gates},
                   {.kind = MixerKind::hierarchical,
                    .block = 2,
                    .window_blocks = 1,
                    .summary = 3,
                    .selected = 1,
                    .summaries = BlockSummary::linear,
                    .combine = BranchCombination::gates,
                    .conv = 2}};
  return c;
}

// Classes of tokens by a hash: one round, and two behind a convolution.
inline ModelCase lsh_case() {
  ModelCase c = mixed_case();
  c.name = "lsh";
  c.model.num_kv_heads = c.model.num_heads;
  c.model.mixer = {{.kind = MixerKind::lsh, .window = 2, .buckets = 4},
                   {.kind = MixerKind::lsh, .window = 3, .buckets = 2, .rounds = 2, .conv = 2}};
  return c;
}

// Heads that are convolutions beside attention, grouped and with sinks behind a convolution.
inline ModelCase conv_heads_case() {
  ModelCase c = mixed_case();
  c.name = "conv_heads";
  c.model.mixer = {
      {.kind = MixerKind::conv_attention, .conv_heads = 2, .width = 3},
      {.kind = MixerKind::conv_attention, .sinks = 1, .conv_heads = 4, .width = 9, .conv = 2}};
  return c;
}

// Transformer-XL's segments.
inline ModelCase segments_case(SegmentGradient gradient) {
  return mixers_case(
      "segments_" + std::string(name_of(gradient)),
      {{.kind = MixerKind::segment, .sinks = 1, .length = 2, .memory = 3, .gradient = gradient},
       {.kind = MixerKind::segment, .length = 3, .memory = 2, .gradient = gradient, .conv = 2}});
}

// Transformer-XL as published: its positions, and a gradient that stops.
inline ModelCase segments_xl_case() {
  ModelCase c = segments_case(SegmentGradient::stop);
  c.name = "segments_xl";
  c.model.position.kind = PositionKind::xl;
  return c;
}

// Compressive Transformer: of what leaves the memory some pooled rows are seen. The pooling learns
// by a loss of its own, so that differences of the loss tell nothing of its gradient.
inline ModelCase compressed_case() {
  ModelCase c = mixed_case();
  c.name = "compressed";
  c.model.position.kind = PositionKind::none;
  c.model.mixer = {
      {.kind = MixerKind::segment,
       .sinks = 1,
       .length = 2,
       .memory = 2,
       .compressed = 1,
       .ratio = 1},
      {.kind = MixerKind::segment, .length = 2, .memory = 2, .compressed = 3, .ratio = 2}};
  return c;
}

// One entry of model.mixer for each recurrent kind: with convolutions and without, heads that share
// keys, widths that differ, chunks that a short sequence has several of.
inline std::vector<MixerConfig> recurrent_mixers() {
  return {
      {.kind = MixerKind::linear, .conv = 4, .chunk = 4},
      {.kind = MixerKind::linear, .conv = 3, .chunk = 4, .features = LinearFeatures::taylor},
      {.kind = MixerKind::linear,
       .conv = 2,
       .chunk = 3,
       .features = LinearFeatures::performer,
       .num_features = 9},
      {.kind = MixerKind::retention, .value_width = 7, .chunk = 3},
      {.kind = MixerKind::lightning, .conv = 2},
      {.kind = MixerKind::ssd,
       .conv = 4,
       .heads = 4,
       .groups = 2,
       .key_width = 5,
       .value_width = 3,
       .chunk = 4},
      {.kind = MixerKind::delta, .conv = 3, .chunk = 4},
      {.kind = MixerKind::infini, .conv = 2, .segment = 4},
      {.kind = MixerKind::gated_delta,
       .conv = 4,
       .heads = 4,
       .groups = 2,
       .chunk = 4,
       .negative_eigenvalues = true},
  };
}

// "ssd", "linear_taylor".
inline std::string title_of(const MixerConfig& mixer) {
  std::string title(name_of(mixer.kind));
  if (mixer.features != LinearFeatures::elu) title += "_" + std::string(name_of(mixer.features));
  return title;
}

// A recurrent layer, then one with attention.
inline ModelCase hybrid_case(const MixerConfig& mixer) {
  return mixers_case("hybrid_" + title_of(mixer),
                     {mixer, {.kind = MixerKind::window, .window = 3}});
}

// Attention behind a convolution, and without one.
inline ModelCase convolved_case() {
  return mixers_case("convolved", {{.kind = MixerKind::window, .window = 3, .conv = 4}, {}});
}

inline ModelCase dropout_case() {
  ModelCase c = mixed_case();
  c.name = "dropout";
  c.model.embedding_dropout = 0.2;
  c.model.residual_dropout = 0.3;
  c.experts.dropout = 0.25;
  c.experts.every = 1;
  return c;
}

// Layers that are their mixer alone, before, between and behind one with experts.
inline ModelCase mixers_alone_case() {
  ModelCase c = dropout_case();
  c.name = "mixers_alone";
  c.model.num_layers = 4;
  c.model.feed_forward = FeedForwardKind::none;
  c.experts.every = 3;
  return c;
}

// A dense layer, then two with shared experts.
inline ModelCase shared_case() {
  ModelCase c = mixed_case();
  c.name = "shared";
  c.model.num_layers = 3;
  c.experts.every = 1;
  c.experts.first_dense = 1;
  c.experts.shared = {.number = 2, .intermediate = 7, .gate = SharedGate::sigmoid};
  return c;
}

}  // namespace switchyard::test
