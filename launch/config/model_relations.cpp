#include "launch/config/model_relations.hpp"

#include <fmt/format.h>

namespace switchyard {
namespace {

void check_heads(RelationChecker& checker, const ModelConfig& model) {
  if (!model.has_latent_attention() &&
      checker.knows({"model.hidden", "model.num_heads", "model.head_dim"})) {
    if (model.head_dim == 0 && model.hidden % model.num_heads != 0) {
      checker.blame(
          {"model.hidden", "model.num_heads", "model.head_dim"},
          fmt::format("hidden / num_heads = {} / {} is not whole, and head_dim is 0; make "
                      "hidden {}, or set head_dim",
                      model.hidden, model.num_heads,
                      multiples_around(model.hidden, model.num_heads)));
    } else if (model.turns_positions() && model.effective_head_dim() % 2 != 0) {
      checker.blame({"model.head_dim", "model.hidden", "model.num_heads"},
                    fmt::format("head_dim = {}{} is odd, and rotary positions need pairs; make it "
                                "even, or choose another model.position",
                                model.head_dim == 0 ? fmt::format("hidden / num_heads = {} / {} = ",
                                                                  model.hidden, model.num_heads)
                                                    : "",
                                model.effective_head_dim()));
    }
  }
  if (checker.knows({"model.num_heads", "model.num_kv_heads"}) &&
      model.num_heads % model.num_kv_heads != 0) {
    checker.blame(
        {"model.num_kv_heads", "model.num_heads"},
        fmt::format("num_heads / num_kv_heads = {} / {} is not whole; legal num_kv_heads: "
                    "{}",
                    model.num_heads, model.num_kv_heads, divisors(model.num_heads)));
  }
}

// What of a pattern of blocks counts with another one only, or with none.
std::string idle_in_pattern(const MixerConfig& mixer) {
  const MixerConfig defaults;
  const bool has_blocks = mixer.kind == MixerKind::blocks;
  const bool is_bigbird = has_blocks && mixer.pattern == BlockPattern::bigbird;
  const bool is_fixed = has_blocks && mixer.pattern == BlockPattern::fixed;
  const bool is_hierarchical = mixer.kind == MixerKind::hierarchical;
  const bool in_blocks = is_bigbird || is_hierarchical;
  const bool has_summary = is_fixed || mixer.summaries == BlockSummary::linear;
  const bool is_sparse = has_blocks && mixer.pattern != BlockPattern::bigbird;
  if (mixer.kind != MixerKind::hierarchical && mixer.summaries != defaults.summaries)
    return fmt::format(
        "summaries = {} counts only with kind hierarchical, not with {}; leave it "
        "out or change the kind",
        name_of(mixer.summaries), name_of(mixer.kind));
  if (!is_hierarchical && mixer.combine != defaults.combine)
    return fmt::format(
        "combine = {} counts only with kind hierarchical, not with {}; leave it out or change the "
        "kind",
        name_of(mixer.combine), name_of(mixer.kind));
  const bool has_segments = mixer.kind == MixerKind::segment;
  if (!has_segments && mixer.gradient != defaults.gradient)
    return fmt::format(
        "gradient = {} counts only with kind segment, not with {}; leave it out or "
        "change the kind",
        name_of(mixer.gradient), name_of(mixer.kind));
  if (!has_blocks && mixer.pattern != defaults.pattern)
    return fmt::format(
        "pattern = {} counts only with kind blocks, not with {}; leave it out or "
        "change the kind",
        name_of(mixer.pattern), name_of(mixer.kind));
  const char* const of_either = "kind hierarchical, or blocks and pattern bigbird";
  const char* const of_bigbird = "kind blocks and pattern bigbird";
  for (const auto& [name, value, idle, counts, where] :
       {std::tuple{"block", mixer.block, defaults.block, in_blocks, of_either},
        {"window_blocks", mixer.window_blocks, defaults.window_blocks, in_blocks, of_either},
        {"global_blocks", mixer.global_blocks, defaults.global_blocks, is_bigbird, of_bigbird},
        {"random_blocks", mixer.random_blocks, defaults.random_blocks, is_bigbird, of_bigbird},
        {"stride", mixer.stride, defaults.stride, is_sparse,
         "kind blocks and pattern fixed or strided"},
        {"summary", mixer.summary, defaults.summary, has_summary,
         "kind blocks and pattern fixed, or linear summaries"},
        {"length", mixer.length, defaults.length, has_segments, "kind segment"},
        {"memory", mixer.memory, defaults.memory, has_segments, "kind segment"},
        {"compressed", mixer.compressed, defaults.compressed, has_segments, "kind segment"},
        {"ratio", mixer.ratio, defaults.ratio, mixer.compressed > 0, "a number of compressed rows"},
        {"selected", mixer.selected, defaults.selected, is_hierarchical, "kind hierarchical"},
        {"buckets", mixer.buckets, defaults.buckets, mixer.kind == MixerKind::lsh, "kind lsh"},
        {"conv_heads", mixer.conv_heads, defaults.conv_heads,
         mixer.kind == MixerKind::conv_attention, "kind conv_attention"},
        {"width", mixer.width, defaults.width, mixer.kind == MixerKind::conv_attention,
         "kind conv_attention"},
        {"rounds", mixer.rounds, defaults.rounds, mixer.kind == MixerKind::lsh, "kind lsh"}})
    if (value != idle && !counts)
      return fmt::format("{} = {} counts only with {}; leave it out", name, value, where);
  return {};
}

// What of an entry of model.mixer counts with other kinds only.
std::string idle_value(const MixerConfig& mixer) {
  const auto counts_with = [&](std::string_view value, std::string_view kinds) {
    return fmt::format("{} counts only with {}, not with {}; leave it out or change the kind",
                       value, kinds, name_of(mixer.kind));
  };
  if (mixer.kind != MixerKind::window && mixer.kind != MixerKind::lsh && mixer.window != 0)
    return counts_with(fmt::format("window = {}", mixer.window), "kind window or lsh");
  if (mixer.kind != MixerKind::window && mixer.globals != 0)
    return counts_with(fmt::format("globals = {}", mixer.globals), "kind window");
  if (mixer.kind != MixerKind::window && mixer.ramp != 0)
    return counts_with(fmt::format("ramp = {}", mixer.ramp), "kind window");
  if (const std::string idle = idle_in_pattern(mixer); !idle.empty()) return idle;
  if (mixer.ramp == 0 && mixer.span_weight != 0)
    return fmt::format("span_weight = {} counts only with a ramp; leave it out or set ramp",
                       mixer.span_weight);
  if (mixer.ramp != 0 && mixer.globals != 0)
    return fmt::format(
        "ramp = {} and globals = {} do not go together: a span hides what is far; "
        "leave one of them out",
        mixer.ramp, mixer.globals);
  if (!mixer.is_attention() && mixer.sinks != 0)
    return counts_with(fmt::format("sinks = {}", mixer.sinks), "attention");
  if (!mixer.is_attention() && mixer.slots != 0)
    return counts_with(fmt::format("slots = {}", mixer.slots), "attention");
  if (mixer.kind != MixerKind::linear && mixer.features != LinearFeatures::elu)
    return counts_with(fmt::format("features = {}", name_of(mixer.features)), "kind linear");
  if (mixer.features != LinearFeatures::performer)
    for (const auto& [name, value] :
         {std::pair{"num_features", mixer.num_features}, {"feature_seed", mixer.feature_seed}})
      if (value != 0)
        return fmt::format(
            "{} = {} counts only with features performer; leave it out or write features: "
            "performer",
            name, value);
  if (mixer.kind != MixerKind::infini && mixer.segment != 0)
    return counts_with(fmt::format("segment = {}", mixer.segment), "kind infini");
  if (mixer.kind == MixerKind::infini) {
    const MixerConfig defaults;
    for (const auto& [name, value, idle] :
         {std::tuple{"groups", mixer.groups, defaults.groups},
          {"value_width", mixer.value_width, defaults.value_width},
          {"chunk", mixer.chunk, defaults.chunk}})
      if (value != idle)
        return counts_with(fmt::format("{} = {}", name, value), "another recurrence");
  }
  if (!mixer.has_delta_rule() && mixer.negative_eigenvalues)
    return counts_with("negative_eigenvalues", "kind delta or gated_delta");
  if (!mixer.is_attention()) return {};
  const MixerConfig defaults;
  for (const auto& [name, value, idle] : {std::tuple{"heads", mixer.heads, defaults.heads},
                                          {"groups", mixer.groups, defaults.groups},
                                          {"key_width", mixer.key_width, defaults.key_width},
                                          {"value_width", mixer.value_width, defaults.value_width},
                                          {"chunk", mixer.chunk, defaults.chunk}})
    if (value != idle) return counts_with(fmt::format("{} = {}", name, value), "a recurrence");
  return {};
}

std::string wrong_hierarchy(const MixerConfig& mixer) {
  const bool has_summaries = mixer.summaries != BlockSummary::none;
  if (mixer.selected == 0 && !has_summaries)
    return "kind hierarchical needs selected blocks or summaries; set one of them, or write kind "
           "window";
  if (!mixer.has_gates()) return {};
  if (mixer.selected == 0 || !has_summaries)
    return "gates weigh three branches: the window, selected blocks and summaries; set selected "
           "and summaries, or write combine: union";
  for (const auto& [name, value] : {std::pair{"sinks", mixer.sinks}, {"slots", mixer.slots}})
    if (value != 0)
      return fmt::format(
          "{} = {} take a share of one softmax, and with gates there are three; leave it out, or "
          "write combine: union",
          name, value);
  return {};
}

// Of attention within classes, whose keys are its queries.
std::string wrong_classes(const MixerConfig& mixer, const ModelConfig& model) {
  if (mixer.window == 0) return "kind lsh needs a window of at least 1 token";
  if (mixer.buckets % 2 != 0)
    return fmt::format("buckets = {} is odd, and each direction makes two; write {}", mixer.buckets,
                       mixer.buckets + 1);
  if (model.num_kv_heads != model.num_heads)
    return fmt::format(
        "queries of kind lsh are keys, too, so each head has its own, and num_kv_heads = {}; write "
        "num_kv_heads: {}",
        model.num_kv_heads, model.num_heads);
  for (const auto& [name, value] : {std::pair{"sinks", mixer.sinks}, {"slots", mixer.slots}})
    if (value != 0)
      return fmt::format("{} = {} do not go with kind lsh; leave it out", name, value);
  if (model.qk_norm != QkNorm::none || model.clip_qkv > 0)
    return "keys of kind lsh have length 1: model.qk_norm and model.clip_qkv do not go with it; "
           "leave them out";
  return {};
}

// Of a pattern of blocks.
std::string wrong_blocks(const MixerConfig& mixer, const ModelConfig& model) {
  if (mixer.kind == MixerKind::hierarchical) return wrong_hierarchy(mixer);
  if (mixer.kind == MixerKind::lsh) return wrong_classes(mixer, model);
  if (mixer.kind != MixerKind::blocks) return {};
  const bool is_fixed = mixer.pattern == BlockPattern::fixed;
  if (is_fixed && mixer.summary > mixer.stride)
    return fmt::format("summary = {} is more than the {} tokens of a block (stride); lower it",
                       mixer.summary, mixer.stride);
  if (mixer.pattern == BlockPattern::strided && model.has_distance_keys())
    return "pattern strided brings tokens of equal distances apart, and position xl needs them "
           "side by side; choose another pattern, or another model.position";
  if (mixer.pattern == BlockPattern::strided && model.num_kv_heads % 2 != 0)
    return fmt::format(
        "pattern strided lets the two halves of the heads see differently, and num_kv_heads = {} "
        "is odd; make it even, or choose pattern fixed",
        model.num_kv_heads);
  return {};
}

// Of segments with a compressed memory.
std::string wrong_memory(const MixerConfig& mixer, const ModelConfig& model) {
  if (mixer.compressed == 0) return {};
  const std::string what = fmt::format("compressed = {}", mixer.compressed);
  for (const auto& [name, value] : {std::pair{"length", mixer.length}, {"memory", mixer.memory}})
    if (value % mixer.ratio != 0)
      return fmt::format(
          "{}: {} = {} is no multiple of ratio = {}, and groups of so many rows are pooled; change "
          "one of them",
          what, name, value, mixer.ratio);
  if (!mixer.stops_gradient())
    return what +
           " needs a memory whose gradient stops; write memory of some tokens, and "
           "gradient: stop or nothing";
  if (model.turns_positions())
    return what +
           " has no rotary positions: pooled rows stand at none; write another "
           "model.position, such as xl or alibi";
  if (mixer.conv > 0 || model.qk_norm != QkNorm::none || model.clip_qkv > 0 || model.qkv_bias)
    return what +
           " makes keys and values of pooled rows by the projection alone; leave conv, "
           "model.qk_norm, model.clip_qkv and model.qkv_bias out";
  return {};
}

// Of a recurrence, whose sizes follow in part from attention's.
std::string wrong_sizes(const MixerConfig& mixer, const ModelConfig& model) {
  const std::int64_t heads = mixer.heads > 0 ? mixer.heads : model.num_heads;
  if (mixer.groups > 0 && heads % mixer.groups != 0)
    return fmt::format("heads / groups = {} / {} is not whole; legal groups: {}", heads,
                       mixer.groups, divisors(heads));
  const bool turns = mixer.kind == MixerKind::retention || mixer.kind == MixerKind::infini;
  if (turns && model.turns_positions() && mixer.key_width > 0 &&
      mixer.key_width != model.effective_head_dim())
    return fmt::format(
        "key_width = {} of kind {} is not head_dim = {}, as wide as rotary positions turn; leave "
        "it out, or choose another model.position",
        mixer.key_width, name_of(mixer.kind), model.effective_head_dim());
  if (mixer.kind == MixerKind::infini && model.scores_distances())
    return fmt::format(
        "attention within the segments of kind infini has no model.position {}; write rope or none",
        name_of(model.position.kind));
  return {};
}

// Heads that are convolutions, and those that are left.
std::string wrong_conv_heads(const MixerConfig& mixer, const ModelConfig& model) {
  const std::int64_t group = model.num_heads / model.num_kv_heads;
  if (mixer.conv_heads > 0 && mixer.conv_heads < model.num_heads && mixer.conv_heads % group == 0)
    return {};
  return fmt::format(
      "conv_heads = {} of {} heads, {} for each kv head: some must be attention, and heads of a kv "
      "head are of one kind; make it a multiple of {} below {}",
      mixer.conv_heads, model.num_heads, group, group, model.num_heads);
}

void check_mixers(RelationChecker& checker, const ModelConfig& model) {
  if (!checker.knows({"model.mixer"})) return;
  const bool knows_heads =
      checker.knows({"model.num_heads", "model.head_dim", "model.hidden", "model.position.kind"});
  for (std::size_t i = 0; i < model.mixer.size(); ++i) {
    const MixerConfig& mixer = model.mixer[i];
    const std::string entry = model.mixer.size() > 1 ? fmt::format("entry {}: ", i) : "";
    if (mixer.kind == MixerKind::infini && mixer.segment == 0)
      checker.blame({"model.mixer"},
                    fmt::format("{}kind infini needs a segment of at least 1 token", entry));
    if (mixer.kind == MixerKind::window && mixer.window == 0)
      checker.blame({"model.mixer"},
                    fmt::format("{}kind window needs a window of at least 1 token", entry));
    if (const std::string idle = idle_value(mixer); !idle.empty())
      checker.blame({"model.mixer"}, entry + idle);
    else if (mixer.kind == MixerKind::conv_attention && knows_heads &&
             checker.knows({"model.num_kv_heads"})) {
      if (const std::string wrong = wrong_conv_heads(mixer, model); !wrong.empty())
        checker.blame({"model.mixer", "model.num_heads", "model.num_kv_heads"}, entry + wrong);
    } else if (mixer.has_blocks() &&
               checker.knows({"model.num_heads", "model.num_kv_heads", "model.position.kind",
                              "model.qk_norm", "model.clip_qkv"})) {
      if (const std::string wrong = wrong_blocks(mixer, model); !wrong.empty())
        checker.blame({"model.mixer", "model.num_kv_heads"}, entry + wrong);
      if (const std::string wrong = wrong_memory(mixer, model); !wrong.empty())
        checker.blame({"model.mixer", "model.position.kind"}, entry + wrong);
    } else if (!mixer.is_attention() && knows_heads)
      if (const std::string wrong = wrong_sizes(mixer, model); !wrong.empty())
        checker.blame({"model.mixer", "model.num_heads", "model.head_dim", "model.position.kind"},
                      entry + wrong);
  }
  const auto num_entries = static_cast<std::int64_t>(model.mixer.size());
  if (checker.knows({"model.num_layers"}) && num_entries > model.num_layers)
    checker.blame({"model.mixer", "model.num_layers"},
                  fmt::format("has {} entries, one for each layer at most, and num_layers is {}",
                              num_entries, model.num_layers));
}

// Latent attention goes with few of the other keys of attention.
void check_latent(RelationChecker& checker, const ModelConfig& model) {
  if (!checker.knows({"model.latent.kv_rank"}) || !model.has_latent_attention()) return;
  const LatentConfig& latent = model.latent;
  if (checker.knows({"model.latent.rope_dim"}) && latent.rope_dim % 2 != 0)
    checker.blame({"model.latent.rope_dim"},
                  fmt::format("rope_dim = {} is odd, and rotary positions need pairs; make it even",
                              latent.rope_dim));
  if (checker.knows({"model.latent.value_dim", "model.latent.nope_dim", "model.latent.rope_dim"}) &&
      latent.value_dim > latent.nope_dim + latent.rope_dim)
    checker.blame({"model.latent.value_dim"},
                  fmt::format("value_dim = {} is more than nope_dim + rope_dim = {} + {}; lower it",
                              latent.value_dim, latent.nope_dim, latent.rope_dim));
  const auto refuse = [&](std::string_view key, bool is_set, std::string_view remedy) {
    if (checker.knows({key}) && is_set)
      checker.blame({key, "model.latent.kv_rank"},
                    fmt::format("latent attention (kv_rank = {}) goes without it; {}",
                                latent.kv_rank, remedy));
  };
  refuse("model.mixer", model.mixer.size() != 1 || !(model.mixer.front() == MixerConfig{}),
         "leave it out");
  refuse("model.position.kind", !model.turns_positions(), "write rope");
  refuse("model.qk_norm", model.qk_norm != QkNorm::none, "write none");
  refuse("model.clip_qkv", model.clip_qkv > 0, "write 0");
  refuse("model.qkv_bias", model.qkv_bias, "write false");
  refuse("model.output_bias", model.output_bias, "write false");
  refuse("model.head_dim", model.head_dim != 0, "write 0: latent.nope_dim and rope_dim say it");
  refuse("model.num_kv_heads", model.num_kv_heads != model.num_heads,
         "write as many as num_heads: every head has keys of its own");
}

void check_buckets(RelationChecker& checker, const PositionConfig& position) {
  const PositionConfig defaults;
  for (const auto& [key, value, idle] :
       {std::tuple{"model.position.buckets", position.buckets, defaults.buckets},
        {"model.position.max_distance", position.max_distance, defaults.max_distance}})
    if (checker.knows({key}) && position.kind != PositionKind::relative && value != idle)
      checker.blame({key, "model.position.kind"},
                    fmt::format("{} counts only with kind relative, and kind is {}; leave it out "
                                "or change the kind",
                                value, name_of(position.kind)));
  if (checker.knows({"model.position.buckets", "model.position.max_distance"}) &&
      position.max_distance <= position.buckets / 2)
    checker.blame({"model.position.max_distance", "model.position.buckets"},
                  fmt::format("max_distance = {} is not beyond buckets / 2 = {}, up to which each "
                              "distance has a bucket; make it larger, or buckets fewer",
                              position.max_distance, position.buckets / 2));
}

void check_positions(RelationChecker& checker, const ModelConfig& model) {
  if (!checker.knows({"model.position.kind"})) return;
  if (checker.knows({"model.rope_scaling.kind"}) && !model.turns_positions() &&
      model.rope_scaling.kind != kernels::RopeScaling::none)
    checker.blame({"model.rope_scaling.kind", "model.position.kind"},
                  fmt::format("kind = {} counts only with rotary positions, and model.position is "
                              "{}; leave it out or write model.position: rope",
                              name_of(model.rope_scaling.kind), name_of(model.position.kind)));
  check_buckets(checker, model.position);
  if (checker.knows({"model.mixer"}) && model.position.kind == PositionKind::relative &&
      model.has_spans())
    checker.blame({"model.position.kind", "model.mixer"},
                  "learned spans (ramp) and relative positions both learn by distance, and scores "
                  "take one of them; leave ramp out, or choose another model.position");
  if (checker.knows({"model.mixer"}) && model.scores_distances() && model.has_hierarchical())
    checker.blame(
        {"model.position.kind", "model.mixer"},
        fmt::format("model.position {} goes by the distance of a token, and the summary of "
                    "a block has none; write mixers of another kind, or another "
                    "model.position",
                    name_of(model.position.kind)));
  if (checker.knows({"model.mixer"}) && model.scores_distances() && model.has_classes())
    checker.blame({"model.position.kind", "model.mixer"},
                  fmt::format("kind lsh sorts tokens by their hash, and model.position {} goes by "
                              "their distance; write mixers of another kind, or another "
                              "model.position",
                              name_of(model.position.kind)));
  const bool has_sines =
      model.position.kind == PositionKind::sinusoidal || model.has_distance_keys();
  if (checker.knows({"model.hidden"}) && has_sines && model.hidden % 2 != 0)
    checker.blame(
        {"model.position.kind", "model.hidden"},
        fmt::format("hidden = {} is odd, and {} positions are pairs of a sine and a cosine; make "
                    "it even, or choose another model.position",
                    model.hidden, name_of(model.position.kind)));
}

void check_rope_scaling(RelationChecker& checker, const ModelConfig& model) {
  const RopeScalingConfig& scaling = model.rope_scaling;
  if (!checker.knows({"model.rope_scaling.kind"})) return;
  if (checker.knows({"model.rope_scaling.factor"}) && scaling.kind == kernels::RopeScaling::none &&
      scaling.factor != 1)
    checker.blame(
        {"model.rope_scaling.factor"},
        fmt::format("factor = {} counts only with kind linear, ntk, yarn or llama3, not with none",
                    scaling.factor));
  if (scaling.kind != kernels::RopeScaling::yarn && scaling.kind != kernels::RopeScaling::llama3)
    return;
  if (checker.knows({"model.rope_scaling.original_length"}) && scaling.original_length == 0)
    checker.blame({"model.rope_scaling.original_length", "model.rope_scaling.kind"},
                  fmt::format("kind {} needs original_length, the sequence length before scaling",
                              name_of(scaling.kind)));
  if (checker.knows({"model.rope_scaling.beta_fast", "model.rope_scaling.beta_slow"}) &&
      scaling.beta_fast <= scaling.beta_slow)
    checker.blame({"model.rope_scaling.beta_fast", "model.rope_scaling.beta_slow"},
                  fmt::format("beta_fast = {} must be above beta_slow = {}", scaling.beta_fast,
                              scaling.beta_slow));
}

}  // namespace

void check_model(RelationChecker& checker, const ModelConfig& model) {
  check_heads(checker, model);
  check_mixers(checker, model);
  check_positions(checker, model);
  check_rope_scaling(checker, model);
  check_latent(checker, model);
}

}  // namespace switchyard
