// Lists, lists of maps and groups of keys in a configuration, and the mistakes in them.
#include "launch/config/config_file.hpp"

#include <gtest/gtest.h>

#include "launch/config/list_value.hpp"
#include "launch/config/value.hpp"
#include "tests/launch/config_cases.hpp"

namespace switchyard {
namespace {

TEST(ConfigLists, AListOfMapsInEveryForm) {
  const auto attention = [](std::string_view appended, const std::vector<std::string>& overrides) {
    return load_config(std::string(smallest) + std::string(appended), "a.yaml", overrides)
        .config.model.mixer;
  };
  using List = std::vector<MixerConfig>;
  const MixerConfig full;
  const MixerConfig window{.kind = MixerKind::window, .window = 64, .sinks = 2};
  EXPECT_EQ(attention("", {}), List{full});
  EXPECT_EQ(attention("model:\n  attention: {kind: window, window: 64, sinks: 2}\n", {}),
            List{window});
  const std::string_view blocks =
      "model:\n  attention:\n    - kind: window\n      window: 64\n      sinks: 2\n    - {}\n";
  EXPECT_EQ(attention(blocks, {}), (List{window, full}));
  EXPECT_EQ(attention(blocks, {"model.mixer.1.sinks=5"}),
            (List{window, {.kind = MixerKind::full, .window = 0, .sinks = 5}}));
  EXPECT_EQ(attention(blocks, {"model.mixer=[{}]"}), List{full});
  EXPECT_EQ(attention("", {"model.mixer.0.kind=window", "model.mixer.0.window=64",
                           "model.mixer.0.sinks=2", "model.mixer.1.kind=full"}),
            (List{window, full}));
}

// model.attention is the earlier name of model.mixer.
TEST(ConfigLists, AKeyWithAnEarlierNameIsReadUnderBoth) {
  const auto mixer = [](std::string_view appended, const std::vector<std::string>& overrides) {
    return load_config(std::string(smallest) + std::string(appended), "a.yaml", overrides)
        .config.model.mixer;
  };
  const std::vector<MixerConfig> windows = {{.kind = MixerKind::window, .window = 8}};
  EXPECT_EQ(mixer("model: {mixer: {kind: window, window: 8}}\n", {}), windows);
  EXPECT_EQ(mixer("", {"model.attention=[{kind: window, window: 8}]"}), windows);
  EXPECT_EQ(mixer("", {"model.attention.0.kind=window", "model.attention.0.window=8"}), windows);
  EXPECT_EQ(mixer("model: {attention: {kind: window, window: 9}}\n", {"model.mixer.0.window=8"}),
            windows);
  EXPECT_EQ(mistakes_after("model:\n  mixer: {kind: full}\n  attention: {kind: full}\n"),
            "a.yaml:7:3: model.attention: is another name of model.mixer, which line 6 sets; "
            "remove one");
  EXPECT_EQ(mistakes_after("", {"model.attention.0.sinks=1", "model.mixer.0.sinks=2"}),
            "command line: model.mixer.0.sinks=2: model.mixer is another name of model.attention, "
            "which an argument before sets; write one of them");
  EXPECT_EQ(mistakes_after("", {"parallel.context=1", "parallel.context.ranks=1"}), "");
}

TEST(ConfigLists, MistakesInListsAndGroups) {
  struct Case {
    std::string_view appended;
    std::string_view message;
  };
  const Case cases[] = {
      {"model:\n  attention:\n    - {kind: windw}\n",
       "a.yaml:7:14: model.mixer.0.kind: 'windw' is not a choice; use full, window, blocks, "
       "segment, hierarchical, lsh, conv_attention, linear, "
       "retention, lightning, ssd, delta, gated_delta or infini; did you mean window?"},
      {"model: {attention: [{}, {windows: 4}]}\n",
       "a.yaml:5:26: model.mixer.1.windows: unknown key; did you mean window?"},
      {"model: {attention: [{window: [4]}]}\n",
       "a.yaml:5:30: model.mixer.0.window: expected a whole number, got a list"},
      {"model: {attention: [{sinks: 1, sinks: 2}]}\n",
       "a.yaml:5:32: model.mixer.0.sinks: appears a second time; remove one"},
      {"model: {attention: [full]}\n",
       "a.yaml:5:21: model.mixer.0: expected a map of keys and values, got a value"},
      {"model: {attention: full}\n",
       "a.yaml:5:20: model.mixer: expected a map or a list of maps, got full"},
      {"model: {attention: []}\n",
       "a.yaml:5:20: model.mixer: expected a map or a list of maps, got an empty list"},
      {"model: {attention: {kind: window}}\n",
       "a.yaml:5:20: model.mixer: kind window needs a window of at least 1 token"},
      {"model: {mixer: {heads: 4}}\n",
       "a.yaml:5:16: model.mixer: heads = 4 counts only with a recurrence, not with full; leave it "
       "out or change the kind"},
      {"model: {mixer: [{}, {kind: ssd, sinks: 1}]}\n",
       "a.yaml:5:16: model.mixer: entry 1: sinks = 1 counts only with attention, not with ssd; "
       "leave it out or change the kind"},
      {"model: {mixer: {kind: window, window: 4, stride: 7}}\n",
       "a.yaml:5:16: model.mixer: stride = 7 counts only with kind blocks and pattern fixed or "
       "strided; leave it out"},
      {"model: {mixer: {kind: blocks, pattern: fixed, stride: 4, summary: 5}}\n",
       "a.yaml:5:16: model.mixer: summary = 5 is more than the 4 tokens of a block (stride); lower "
       "it"},
      {"model: {num_kv_heads: 1, mixer: {kind: blocks, pattern: strided}}\n",
       "a.yaml:5:33: model.mixer: pattern strided lets the two halves of the heads see "
       "differently, "
       "and num_kv_heads = 1 is odd; make it even, or choose pattern fixed"},
      {"model: {mixer: {kind: ssd, negative_eigenvalues: true}}\n",
       "a.yaml:5:16: model.mixer: negative_eigenvalues counts only with kind delta or gated_delta, "
       "not with ssd; leave it out or change the kind"},
      {"model: {mixer: {kind: delta, heads: 6, groups: 4}}\n",
       "a.yaml:5:16: model.mixer: heads / groups = 6 / 4 is not whole; legal groups: 1, 2, 3, 6"},
      {"model: {mixer: {kind: retention, key_width: 10}}\n",
       "a.yaml:5:16: model.mixer: key_width = 10 of kind retention is not head_dim = 64, as wide "
       "as "
       "rotary positions turn; leave it out, or choose another model.position"},
      {"model: {attention: [{}, {window: 8}]}\n",
       "a.yaml:5:20: model.mixer: entry 1: window = 8 counts only with kind window or lsh, not "
       "with full; leave it out or change the kind"},
      {"model: {num_layers: 1, attention: [{}, {}]}\n",
       "a.yaml:5:35: model.mixer: has 2 entries, one for each layer at most, and num_layers is "
       "1"},
      {"model: {rope_scaling: {factr: 2}}\n",
       "a.yaml:5:24: model.rope_scaling.factr: unknown key; did you mean "
       "model.rope_scaling.factor?"},
      {"model: {rope_scaling: {kind: yarn, factor: 4}}\n",
       "a.yaml:5:30: model.rope_scaling.kind: kind yarn needs original_length, the sequence length "
       "before scaling"},
      {"model: {rope_scaling: {factor: 4}}\n",
       "a.yaml:5:32: model.rope_scaling.factor: factor = 4 counts only with kind linear, ntk, "
       "yarn or llama3, not with none"},
      {"model: {rope_scaling: {kind: llama3, factor: 4, original_length: 64, beta_fast: 1}}\n",
       "a.yaml:5:81: model.rope_scaling.beta_fast: beta_fast = 1 must be above beta_slow = 1"},
      {"model: {latent: 8, num_kv_heads: 4, qk_norm: head}\n",
       "a.yaml:5:46: model.qk_norm: latent attention (kv_rank = 8) goes without it; write none"},
      {"model: {latent: {kv_rank: 8, value_dim: 200}, num_kv_heads: 4}\n",
       "a.yaml:5:41: model.latent.value_dim: value_dim = 200 is more than nope_dim + rope_dim = "
       "128 "
       "+ 64; lower it"},
      {"model: {rope_scaling: {kind: linear, factor: 0.5}}\n",
       "a.yaml:5:46: model.rope_scaling.factor: must be at least 1 and at most 1000000, got 0.5"},
      {"model: {rope_scaling: [linear]}\n",
       "a.yaml:5:23: model.rope_scaling.kind: expected one of none, linear, ntk, yarn, llama3, got "
       "a "
       "list"},
      {"model: {rope_scaling.factor: 2}\n",
       "a.yaml:5:9: model.rope_scaling.factor: unknown key; write maps, not dots, in a file"},
      {"model: {factor: 2}\n",
       "a.yaml:5:9: model.factor: unknown key; did you mean model.rope_scaling.factor?"},
  };
  for (const Case& each : cases) {
    EXPECT_EQ(mistakes_after(each.appended), each.message) << each.appended;
  }
  EXPECT_EQ(load_config(std::string(smallest) + "model: {rope_scaling: linear}\n", "a.yaml")
                .config.model.rope_scaling.kind,
            kernels::RopeScaling::linear);
  const auto context = [](std::string_view appended, const std::vector<std::string>& overrides) {
    return load_config(std::string(smallest) + std::string(appended), "a.yaml", overrides)
        .config.parallel;
  };
  EXPECT_EQ(context("parallel: {context: 4}\n", {}).context, 4);
  EXPECT_EQ(context("", {"parallel.context=4"}).context, 4);
  const ParallelConfig split =
      context("parallel: {context: {ring: 2, ulysses: 2, pad: true}}\n",
              {"parallel.context.layout=contiguous", "parallel.context.ring=3"});
  EXPECT_EQ(split.context, 1);
  EXPECT_EQ(split.context_split.ring, 3);
  EXPECT_EQ(split.context_split.ulysses, 2);
  EXPECT_TRUE(split.context_split.pad);
  EXPECT_EQ(split.context_split.layout, SequenceLayout::contiguous);
  EXPECT_EQ(mistakes_after("parallel: {context: 0}\n"),
            "a.yaml:5:21: parallel.context.ranks: must be at least 1 and at most 1000000, got 0");
  EXPECT_EQ(mistakes_after("parallel: {context: auto}\n"),
            "a.yaml:5:21: parallel.context.ranks: expected a whole number, got auto; auto is a "
            "value of parallel.context.method");
  EXPECT_EQ(mistakes_after("", {"parallel.context.ring=contiguous"}),
            "command line: parallel.context.ring=contiguous: expected a whole number, got "
            "contiguous; contiguous is a value of parallel.context.layout");
  EXPECT_EQ(mistakes_after("parallel: {context: {rnig: 2}}\n"),
            "a.yaml:5:22: parallel.context.rnig: unknown key; did you mean parallel.context.ring?");
  EXPECT_EQ(mistakes_after("", {"model.mixer.3.kind=full"}),
            "command line: model.mixer.3.kind=full: model.mixer has 1 entry; the next is "
            "model.mixer.1");
  EXPECT_EQ(mistakes_after("", {"model.mixer=[{kind: windw}]"}),
            "command line: model.mixer=[{kind: windw}]: model.mixer.0.kind: 'windw' is "
            "not a choice; use full, window, blocks, segment, hierarchical, lsh, conv_attention, "
            "linear, retention, "
            "lightning, ssd, delta, gated_delta or infini; did you mean window?");
  EXPECT_EQ(mistakes_after("", {"model.rope_scaling.factor=2", "model.rope_scaling=linear"}), "");
}

// The two kinds of list that hold plain values.
TEST(ConfigLists, ListsOfIntegersAndChoices) {
  const auto read = [](Key key, const std::string& text, Config& config) {
    std::vector<ValueMistake> mistakes;
    assign_list_text(config, key, text, mistakes);
    return mistakes.empty() ? "" : mistakes.front().path + ": " + mistakes.front().problem;
  };
  static std::vector<std::int64_t> integers;
  Key steps{.section = "capture",
            .name = "steps",
            .field = find_key("run.seed")->field,
            .description = ""};
  steps.field = Access<std::vector<std::int64_t>>(
      [](Config&) -> std::vector<std::int64_t>& { return integers; });
  steps.range = {.least = 1};
  steps.empty_word = "all";
  const Key& tensors = *find_key("capture.tensors");
  Config config;
  EXPECT_EQ(read(steps, "[1, 20, 3]", config), "");
  EXPECT_EQ(integers, (std::vector<std::int64_t>{1, 20, 3}));
  EXPECT_EQ(format_value(config, steps), "[1, 20, 3]");
  EXPECT_EQ(read(steps, "[1, 0]", config), "capture.steps.1: must be at least 1, got 0");
  EXPECT_EQ(read(steps, "7", config), "");
  EXPECT_EQ(integers, std::vector<std::int64_t>{7});
  EXPECT_EQ(read(steps, "10..12", config), "");
  EXPECT_EQ(integers, (std::vector<std::int64_t>{10, 11, 12}));
  EXPECT_EQ(read(steps, "[1, 3..4, 9..9]", config), "");
  EXPECT_EQ(integers, (std::vector<std::int64_t>{1, 3, 4, 9}));
  EXPECT_EQ(read(steps, "4..3", config), "capture.steps: a range goes upwards: 3..4");
  EXPECT_EQ(read(steps, "[0..2]", config), "capture.steps.0: must be at least 1, got 0");
  EXPECT_EQ(read(steps, "1..", config), "capture.steps: a range has two ends, as 10..12; got 1..");
  EXPECT_EQ(read(steps, "1..1000000", config),
            "capture.steps: a range of more than 10000 numbers: 1..1000000");
  EXPECT_EQ(read(steps, "7", config), "");
  EXPECT_EQ(integers, std::vector<std::int64_t>{7});
  EXPECT_EQ(read(steps, "all", config), "");
  EXPECT_TRUE(integers.empty());
  EXPECT_EQ(format_value(config, steps), "all");
  EXPECT_EQ(read(steps, "[]", config), "capture.steps: is empty; write all");
  EXPECT_EQ(read(steps, "[all]", config),
            "capture.steps.0: expected a list of whole numbers, got all");
  EXPECT_EQ(read(tensors, "[gate_probs, 'hidden']", config), "");
  EXPECT_EQ(config.capture.tensors,
            (std::vector{ObservedTensor::gate_probs, ObservedTensor::hidden}));
  EXPECT_EQ(format_value(config, tensors), "[gate_probs, hidden]");
  EXPECT_EQ(read(tensors, "[hiden]", config),
            "capture.tensors.0: 'hiden' is not a choice; use hidden, attention_lse or gate_probs; "
            "did you mean hidden?");
  EXPECT_EQ(read(tensors, "[]", config), "capture.tensors: is empty; write all");
  EXPECT_EQ(read(tensors, "attention_lse", config), "");
  EXPECT_EQ(config.capture.tensors, std::vector{ObservedTensor::attention_lse});
  EXPECT_EQ(read(tensors, "all", config), "");
  EXPECT_TRUE(config.capture.tensors.empty());
}

// What a checkpoint keeps, perhaps of an earlier version: keys and values that are gone are left
// out, and the rest is compared as this version writes it.

}  // namespace
}  // namespace switchyard
