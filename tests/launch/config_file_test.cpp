// Reading a configuration: each kind of mistake with its exact text and place.
#include "launch/config/config_file.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "cmake/built_with.hpp"
#include "launch/config/list_value.hpp"
#include "launch/config/value.hpp"
#include "tensor/random.hpp"
#include "tests/launch/config_cases.hpp"

namespace switchyard {
namespace {

TEST(ConfigFile, EveryMistakeNamesPlaceKeyAndRemedy) {
  struct Case {
    std::string_view appended;
    std::string_view message;
  };
  const Case cases[] = {
      {"model:\n  hiden: 8\n", "a.yaml:6:3: model.hiden: unknown key; did you mean model.hidden?"},
      {"modle:\n  hidden: 8\n", "a.yaml:5:1: modle: unknown section; did you mean model?"},
      {"hidden: 8\n", "a.yaml:5:1: hidden: unknown section; did you mean model.hidden?"},
      {"model.hidden: 8\n",
       "a.yaml:5:1: model.hidden: unknown section; in a file write model: with hidden: below it"},
      {"optimizer:\n  lr: 0.1\n",
       "a.yaml:6:3: optimizer.lr: unknown key; did you mean optimizer.learning_rate?"},
      {"train:\n  steps: 3\n",
       "a.yaml:6:3: train.steps: unknown key; did you mean train.num_steps?"},
      {"model:\n  zebra: 1\n", "a.yaml:6:3: model.zebra: unknown key"},
      {"model: {hidden: 1.5}\n", "a.yaml:5:17: model.hidden: expected a whole number, got 1.5"},
      {"train: {num_steps: 1e6}\n",
       "a.yaml:5:20: train.num_steps: expected a whole number, got 1e6; write 1000000"},
      {"model:\n  hidden: \"8\"\n",
       "a.yaml:6:11: model.hidden: expected a whole number, got the quoted text \"8\"; remove the "
       "quotes"},
      {"run2:\n", "a.yaml:5:1: run2: unknown section; did you mean run?"},
      {"train:\n  num_steps: 99999999999999999999\n",
       "a.yaml:6:14: train.num_steps: expected a whole number of at most 64 bits, got "
       "99999999999999999999"},
      {"model:\n  num_layers: -4\n",
       "a.yaml:6:15: model.num_layers: must be at least 1 and at most 10000, got -4"},
      {"optimizer:\n  beta1: 1\n",
       "a.yaml:6:10: optimizer.beta1: must be at least 0 and below 1, got 1"},
      {"optimizer:\n  learning_rate: 0\n",
       "a.yaml:6:18: optimizer.learning_rate: must be above 0, got 0"},
      {"optimizer:\n  clip_norm: -1\n",
       "a.yaml:6:14: optimizer.clip_norm: must be at least 0, got -1"},
      {"optimizer:\n  learning_rate: .inf\n",
       "a.yaml:6:18: optimizer.learning_rate: expected a number, got .inf"},
      {"optimizer:\n  learning_rate: nan\n",
       "a.yaml:6:18: optimizer.learning_rate: must be finite, got nan"},
      {"optimizer:\n  learning_rate: 1e999\n",
       "a.yaml:6:18: optimizer.learning_rate: expected a number that fits a double, got 1e999"},
      {"model:\n  tie_embeddings: yes\n",
       "a.yaml:6:19: model.tie_embeddings: expected true or false, got yes; write true"},
      {"optimizer:\n  schedule: cosin\n",
       "a.yaml:6:13: optimizer.schedule: 'cosin' is not a choice; use cosine, linear or "
       "constant_decay; did you mean cosine?"},
      {"model:\n  hidden: [8]\n", "a.yaml:6:11: model.hidden: expected a whole number, got a list"},
      {"model:\n  hidden: {a: 8}\n",
       "a.yaml:6:11: model.hidden: expected a whole number, got a map"},
      {"model:\n  hidden:\n",
       "a.yaml:6:3: model.hidden: expected a whole number, got nothing; leave the key out for its "
       "default"},
      {"model: 8\n", "a.yaml:5:8: model: expected keys with values, got a value"},
      {"model: [8]\n", "a.yaml:5:8: model: expected keys with values, got a list"},
      {"model:\n  hidden: 8\n  hidden: 16\n",
       "a.yaml:7:3: model.hidden: appears a second time, first on line 6; remove one"},
      {"data:\n  path: b.h5\n",
       "a.yaml:5:1: data: appears a second time, first on line 3; join the two"},
      {"model: &m\n  hidden: 8\n",
       "a.yaml:5:8: anchors (&name) are not supported; write the value out"},
      {"model:\n  <<: {hidden: 8}\n",
       "a.yaml:6:3: merge keys (<<) are not supported; write the keys out"},
      {"model:\n  hidden: !!int 8\n",
       "a.yaml:6:11: tags (tag:yaml.org,2002:int) are not supported; leave it out"},
      {"---\nmodel:\n  hidden: 8\n",
       "a.yaml:6:1: a second document begins; a configuration is one YAML document"},
      {"? [a]\n: 3\n", "a.yaml:5:3: a key must be a word, got a list"},
  };
  for (const Case& each : cases) {
    EXPECT_EQ(mistakes_after(each.appended), each.message) << each.appended;
  }
}

TEST(ConfigFile, AnAliasIsToldOnceAndItsValueIsNotGuessedAt) {
  EXPECT_EQ(mistakes_after("model:\n  num_heads: &h 8\n  num_kv_heads: *h\n"),
            "a.yaml:6:14: anchors (&name) are not supported; write the value out\n"
            "a.yaml:7:17: aliases (*name) are not supported; write the value out");
}

TEST(ConfigFile, RelationsPrintTheirEquation) {
  struct Case {
    std::string_view appended;
    std::string_view message;
  };
  const Case cases[] = {
      {"model: {hidden: 100, num_heads: 8}\n",
       "a.yaml:5:17: model.hidden: hidden / num_heads = 100 / 8 is not whole, and head_dim is 0; "
       "make hidden 96 or 104, or set head_dim"},
      {"model: {num_heads: 8, num_kv_heads: 3}\n",
       "a.yaml:5:37: model.num_kv_heads: num_heads / num_kv_heads = 8 / 3 is not whole; legal "
       "num_kv_heads: 1, 2, 4, 8"},
      {"model: {head_dim: 7}\n",
       "a.yaml:5:19: model.head_dim: head_dim = 7 is odd, and rotary positions need pairs; make it "
       "even, or choose another model.position"},
      {"model: {hidden: 12, num_heads: 4}\n",
       "a.yaml:5:17: model.hidden: head_dim = hidden / num_heads = 12 / 4 = 3 is odd, and rotary "
       "positions need pairs; make it even, or choose another model.position"},
      {"model: {position: none, rope_scaling: ntk}\n",
       "a.yaml:5:39: model.rope_scaling.kind: kind = ntk counts only with rotary positions, and "
       "model.position is none; leave it out or write model.position: rope"},
      {"model: {hidden: 9, num_heads: 3, num_kv_heads: 1, position: sinusoidal}\n",
       "a.yaml:5:61: model.position.kind: hidden = 9 is odd, and sinusoidal positions are pairs of "
       "a sine and a cosine; make it even, or choose another model.position"},
      {"experts: {num_experts: 2, top_k: 3}\n",
       "a.yaml:5:34: experts.top_k: top_k = 3 is more than num_experts = 2; lower top_k or add "
       "experts"},
      {"experts: {first_dense: 4, every: 2}\n",
       "a.yaml:5:24: experts.first_dense: first_dense = 4 leaves no layer with experts: num_layers "
       "= 4 "
       "and every = 2; make it at most 3, or num_experts 0 for a dense model"},
      {"experts: {shared: {gate: sigmoid}}\n",
       "a.yaml:5:26: experts.shared.gate: gate = sigmoid counts only with shared experts, and "
       "number is 0; leave it out or set number"},
      {"experts: {router: {kind: base}}\n",
       "a.yaml:5:26: experts.router.kind: kind base lets a token's experts depend on tokens that "
       "come after it, which training then learns from and generation does not have; write "
       "allow_future: true if that is meant, or another kind"},
      {"experts: {top_k: 3, router: {kind: gshard}}\n",
       "a.yaml:5:18: experts.top_k: kind gshard has a first and a second expert, and top_k "
       "is 3; write 2"},
      {"experts: {normalize_top_k: false, router: {kind: gshard}}\n",
       "a.yaml:5:28: experts.normalize_top_k: kind gshard keeps its second expert with a "
       "probability "
       "by its share of both scores; leave normalize_top_k out"},
      {"experts: {bias_rate: 0.001, router: {kind: hash}}\n",
       "a.yaml:5:22: experts.bias_rate: a bias moves the choice of the largest scores, and kind "
       "hash chooses in another way; leave bias_rate out or change the kind"},
      {"experts: {router: {kind: noisy_top_k, score: sigmoid}}\n",
       "a.yaml:5:46: experts.router.score: kind noisy_top_k is defined with a softmax; leave score "
       "out"},
      {"experts: {router: {softmax_over: chosen, score: sigmoid}}\n",
       "a.yaml:5:34: experts.router.softmax_over: score sigmoid has no softmax; leave softmax_over "
       "out"},
      {"experts: {normalize_top_k: false, router: {softmax_over: chosen}}\n",
       "a.yaml:5:58: experts.router.softmax_over: a softmax over the chosen sums to 1; leave "
       "normalize_top_k out"},
      {"experts: {router: {kind: hash, jitter: 0.01}}\n",
       "a.yaml:5:40: experts.router.jitter: kind hash does not look at the token's vector; leave "
       "jitter out"},
      {"experts: {router: {groups: 3}}\n",
       "a.yaml:5:28: experts.router.groups: num_experts / groups = 8 / 3 is not whole"},
      {"experts: {router: {groups: 4, top_groups: 5}}\n",
       "a.yaml:5:43: experts.router.top_groups: top_groups = 5 is more than groups = 4; lower it"},
      {"experts: {top_k: 3, router: {groups: 4}}\n",
       "a.yaml:5:38: experts.router.groups: top_k = 3 is more than the 2 experts of top_groups = 1 "
       "groups; raise top_groups or lower top_k"},
      {"experts: {router: {kind: balanced, groups: 2}}\n",
       "a.yaml:5:44: experts.router.groups: groups count only with kind top_k, not with balanced; "
       "leave them out"},
      {"experts: {router: {capacity: 2}}\n",
       "a.yaml:5:30: experts.router.capacity: capacity counts only with kind expert_choice, not "
       "with top_k; leave it out"},
      {"experts: {router: {kind: imbalanced, imbalance: 5}}\n",
       "a.yaml:5:49: experts.router.imbalance: an expert gets a token once, so at most num_experts "
       "/ top_k = 8 / 2 = 4 times the mean, and imbalance is 5"},
      {"experts: {every: 5}\n",
       "a.yaml:5:18: experts.every: every = 5 is more than num_layers = 4, so no layer would have "
       "experts; lower it, or write 0 for a dense model"},
      {"experts: {balance_scope: step}\nmodel: {sequence_length: 2048}\n"
       "train: {global_batch: 1000000}\n",
       "a.yaml:5:26: experts.balance_scope: global_batch x sequence_length x top_k = 1000000 x "
       "2048 x "
       "2 is more than 2147483647 choices, which balance_scope step can count; write sequence"},
      {"experts: {max_rows: 100}\n",
       "a.yaml:5:21: experts.max_rows: max_rows = 100 is too few: parts of fewer than 2048 rows "
       "would have to cut sums of weight gradients; write at least 2048, or 0 for all rows at "
       "once"},
      {"experts: {dispatch: {ranks_per_node: 2}}\n",
       "a.yaml:5:38: experts.dispatch.ranks_per_node: ranks_per_node = 2 counts only with kind "
       "hierarchical, not with all_to_all; leave it out or change the kind"},
      {"experts: {max_rows: 4096, dispatch: hierarchical}\n",
       "a.yaml:5:21: experts.max_rows: with kind hierarchical a rank also holds tokens for "
       "the others of its node, which max_rows does not bound; write max_rows: 0, or another kind"},
      {"experts: {latent: 30, dispatch: {kind: all_gather, wire: fp8}}\n",
       "a.yaml:5:58: experts.dispatch.wire: with kind all_gather packed tokens travel in words of "
       "4 "
       "bytes, and tokens of 30 elements (experts.latent, or model.hidden) do not fill them; make "
       "those a multiple of 4, or write wire: compute or kind: all_to_all"},
      {"numerics: {exact: true}\nexperts: {dispatch: {wire: bf16}}\n",
       "a.yaml:6:28: experts.dispatch.wire: wire bf16 rounds what travels, and how much travels "
       "follows from the layout, which numerics.exact forbids; write compute, or numerics.exact: "
       "false"},
      {"experts: {drop_by: score}\n",
       "a.yaml:5:20: experts.drop_by: drop_by counts only with a capacity_factor above 0; set it "
       "or "
       "leave both out"},
      {"experts: {capacity_factor: 1, drop_by: score}\n",
       "a.yaml:5:40: experts.drop_by: drop_by score lets it depend on tokens that come later "
       "whether a token's choice is dropped; write allow_future: true if that is meant, or "
       "drop_by: position"},
      {"checkpoint: {start_with: all}\n",
       "a.yaml:5:26: checkpoint.start_with: start_with = all counts only with start_from, the "
       "checkpoint to begin with; set it or leave both out"},
      {"checkpoint: {start_from: a, resume: b}\n",
       "a.yaml:5:26: checkpoint.start_from: resume = b names a checkpoint to go on from, so that "
       "start_from = a would never be read; leave one of them out"},
      {"train: {global_batch: 8, micro_batch: 3}\n",
       "a.yaml:5:39: train.micro_batch: global_batch / micro_batch = 8 / 3 is not whole; legal "
       "micro_batch: 0, 1, 2, 4, 8"},
      {"optimizer: {schedule: constant_decay, decay_steps: 90}\n",
       "a.yaml:5:52: optimizer.decay_steps: warmup_steps + decay_steps = 20 + 90 = 110 is more "
       "than "
       "num_steps = 100; legal decay_steps: at most 80"},
      {"numerics: {exact: true}\nparallel: {context: {method: ring}}\n",
       "a.yaml:6:30: parallel.context.method: method ring adds up every result hop by hop, so "
       "that its last bits depend on who holds which positions, and numerics.exact forbids that; "
       "write auto or all_gather, or numerics.exact: false"},
      {"numerics: {exact: true}\nexperts: {balance_scope: step}\n",
       "a.yaml:6:26: experts.balance_scope: balance_scope step takes its means over the sequences "
       "that share a micro-step, which follow from the layout, and numerics.exact forbids that; "
       "write sequence (or bias_rate, for a balance over all), or numerics.exact: false"},
      {"optimizer: {decay_steps: 5}\n",
       "a.yaml:5:26: optimizer.decay_steps: decay_steps = 5 counts only with schedule "
       "constant_decay, not with cosine; leave it out or change the schedule"},
      {"optimizer: {min_learning_rate: 1}\n",
       "a.yaml:5:32: optimizer.min_learning_rate: min_learning_rate = 1 is more than learning_rate "
       "= 0.0006; lower it"},
  };
  for (const Case& each : cases) {
    EXPECT_EQ(mistakes_after(each.appended), each.message) << each.appended;
  }
  EXPECT_EQ(mistakes_of("run: {output: a, device: cuda}\ndata: {path: b}\n"),
            built_with_cuda ? ""
                            : "a.yaml:1:26: run.device: this build has no cuda device; write cpu "
                              "or auto, or build it where the CUDA toolkit is installed (cmake "
                              "--preset cuda)");
}

// One weight scaled to 1 hides the router from the language model's loss, so it is not the default.
TEST(ConfigFile, NormalizeTopKLeftOutFollowsTopK) {
  const auto load = [](std::string_view appended, const std::vector<std::string>& overrides = {}) {
    return load_config(std::string(smallest) + std::string(appended), "a.yaml", overrides);
  };
  const auto normalizes = [&](std::string_view appended,
                              const std::vector<std::string>& overrides) {
    const LoadedConfig loaded = load(appended, overrides);
    EXPECT_EQ(loaded.warnings, std::vector<std::string>{});
    return loaded.config.experts.normalize_top_k;
  };
  EXPECT_TRUE(normalizes("", {}));
  EXPECT_TRUE(normalizes("experts: {top_k: 3}\n", {}));
  EXPECT_TRUE(normalizes("experts: {top_k: 1}\n", {"experts.top_k=2"}));
  EXPECT_FALSE(normalizes("experts: {top_k: 1}\n", {}));
  EXPECT_FALSE(normalizes("", {"experts.top_k=1"}));
  EXPECT_FALSE(normalizes("experts: {normalize_top_k: false}\n", {}));
  EXPECT_TRUE(normalizes("experts: {router: {softmax_over: chosen}}\n", {}));
  EXPECT_FALSE(normalizes("experts: {allow_future: true, router: {kind: expert_choice}}\n", {}));
  EXPECT_TRUE(normalizes("experts: {num_experts: 0, top_k: 1, normalize_top_k: true}\n", {}));

  // What a checkpoint or a run's config.yaml says stays as it was meant, with a warning.
  const std::string problem =
      "warning: with top_k = 1, normalize_top_k = true makes the one weight 1, so the router "
      "learns from the balance and z losses alone and not from the language model's; write false "
      "unless Mixtral's mathematics at top-1 is meant";
  const LoadedConfig saved = load("experts: {top_k: 1, normalize_top_k: true}\n");
  EXPECT_TRUE(saved.config.experts.normalize_top_k);
  EXPECT_EQ(saved.warnings,
            std::vector<std::string>{"a.yaml:5:38: experts.normalize_top_k: " + problem});
  EXPECT_EQ(load("experts: {normalize_top_k: true}\n", {"experts.top_k=1"}).warnings,
            std::vector<std::string>{"command line: experts.top_k=1: " + problem});
}

// A key that is gone names its successor; the configuration that a checkpoint keeps may have it.
TEST(ConfigFile, RetiredKeys) {
  const std::string advice =
      "is gone, since its meaning depended on the batch; write evaluate.num_sequences, which "
      "counts sequences (0, the default: all of the validation split)";
  EXPECT_EQ(mistakes_after("evaluate: {num_batches: 8}\n"),
            "a.yaml:5:12: evaluate.num_batches: " + advice);
  EXPECT_EQ(mistakes_after("", {"evaluate.num_batches=8"}),
            "command line: evaluate.num_batches=8: " + advice);
  const LoadedConfig saved = load_saved_config(
      std::string(smallest) + "evaluate: {every: 3, num_batches: 8}\n", "manifest.json");
  EXPECT_EQ(saved.config.evaluate.every, 3);
  EXPECT_EQ(saved.config.evaluate.num_sequences, 0);
  EXPECT_THROW(load_saved_config(std::string(smallest) + "evaluate: {nm_batches: 8}\n", "a"),
               ConfigError);
}

TEST(ConfigFile, ARelationWithAWrongValueIsNotChecked) {
  EXPECT_EQ(mistakes_after("experts: {num_experts: two, top_k: 30}\n"),
            "a.yaml:5:24: experts.num_experts: expected a whole number, got two");
}

TEST(ConfigFile, AllMistakesAreToldTogetherInTheOrderOfTheFile) {
  EXPECT_EQ(mistakes_of("run:\n"
                        "  seed: -1\n"
                        "model:\n"
                        "  num_heads: 8\n"
                        "  num_kv_heads: 3\n"
                        "  n_layers: 3\n"
                        "train: {num_steps: 1.5}\n",
                        {"optimizer.beta3=1", "train.micro_batch=x"}),
            "a.yaml:1:1: run.output: missing; every configuration must set it\n"
            "a.yaml:1:1: data.path: missing; every configuration must set it\n"
            "a.yaml:2:9: run.seed: must be at least 0, got -1\n"
            "a.yaml:5:17: model.num_kv_heads: num_heads / num_kv_heads = 8 / 3 is not whole; legal "
            "num_kv_heads: 1, 2, 4, 8\n"
            "a.yaml:6:3: model.n_layers: unknown key; did you mean model.num_layers?\n"
            "a.yaml:7:20: train.num_steps: expected a whole number, got 1.5\n"
            "command line: optimizer.beta3=1: unknown key; did you mean optimizer.beta1?\n"
            "command line: train.micro_batch=x: expected a whole number, got x");
}

TEST(ConfigFile, WhatIsNoConfigurationAtAll) {
  const std::string empty =
      "a.yaml:1:1: the file is empty; it must set at least run.output and data.path";
  EXPECT_EQ(mistakes_of(""), empty);
  EXPECT_EQ(mistakes_of("# only a comment\n"), empty);
  EXPECT_EQ(mistakes_of("- a\n- b\n"),
            "a.yaml:1:1: expected sections (run, data, model, ...) with their keys at the top "
            "level, got a list");
  EXPECT_EQ(mistakes_of("hello\n"),
            "a.yaml:1:1: expected sections (run, data, model, ...) with their keys at the top "
            "level, got a value");
  EXPECT_EQ(mistakes_of("data: {path: a}\nrun:\n  output: \"a\\\"\n  seed: 3\n"),
            "a.yaml:3:11: not YAML: this quote is never closed");
  EXPECT_EQ(mistakes_of("data: {path: a}\nrun:\n  output: 'it''s\n"),
            "a.yaml:3:11: not YAML: this quote is never closed");
  EXPECT_EQ(mistakes_of("run: {output: a\ndata: b\n"),
            "a.yaml:2:5: not YAML: end of map flow not found");
  EXPECT_EQ(mistakes_of("run:\n\toutput: a\n"),
            "a.yaml:2:8: not YAML: illegal map value; indent with spaces, not tabs");
  EXPECT_EQ(mistakes_of("\xef\xbb\xbf" + std::string(smallest)), "");
  EXPECT_EQ(mistakes_of("run:\n  output: caf\xe9\n"),
            "a.yaml:2:14: byte 0xe9 is not UTF-8; save the file as UTF-8");
  EXPECT_EQ(mistakes_of(std::string_view("run:\n  a\0b: 1\n", 14)),
            "a.yaml:2:4: control character 0x00; this is not a YAML text");
}

TEST(ConfigFile, FilesThatCannotBeRead) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "config_file";
  std::filesystem::create_directories(folder);
  const auto message = [](const std::string& path) -> std::string {
    try {
      read_config(path);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(folder.string()), folder.string() + ": is a folder, not a configuration file");
  const std::string missing = (folder / "none.yaml").string();
  EXPECT_EQ(message(missing),
            missing + ": cannot read the configuration: No such file or directory");
  EXPECT_EQ(message("/dev/zero"), "/dev/zero: has more than 1 MiB; this is no configuration");

  const std::string good = (folder / "good.yaml").string();
  std::ofstream(good) << smallest;
  EXPECT_EQ(read_config(good).config.data.path, "a.h5");
}

TEST(ConfigFile, OverridesWinAndTheLastCounts) {
  const std::vector<std::string> overrides = {"train.num_steps=30", "run.output=a: b=c #d",
                                              "train.num_steps=40", "model.tie_embeddings=true"};
  const LoadedConfig loaded = load_config(smallest, "a.yaml", overrides);
  EXPECT_EQ(loaded.config.train.num_steps, 40);
  EXPECT_EQ(loaded.config.run.output, "a: b=c #d");
  EXPECT_TRUE(loaded.config.model.tie_embeddings);
  EXPECT_EQ(loaded.origin_text(*find_key("train.num_steps")), "command line: train.num_steps=40");
  EXPECT_EQ(loaded.origin_text(*find_key("data.path")), "a.yaml:4:9");
  EXPECT_EQ(loaded.origin_text(*find_key("model.hidden")), "default");
}

TEST(ConfigFile, AnOverrideSuppliesARequiredKey) {
  EXPECT_EQ(mistakes_of("run: {output: a}\n", {"data.path=b.h5"}), "");
}

TEST(ConfigFile, MistakesOfOverrides) {
  struct Case {
    std::string argument;
    std::string_view problem;
  };
  const Case cases[] = {
      {"train.num_steps", "expected KEY=VALUE, as in train.num_steps=10"},
      {"=3", "expected KEY=VALUE, as in train.num_steps=10"},
      {"model={}", "model is a section; set its keys one by one, as in model.KEY=VALUE"},
      {"num_steps=3", "unknown key; did you mean train.num_steps?"},
      {"trian.num_steps=3", "unknown section trian; did you mean train?"},
      {"train.num_step=3", "unknown key; did you mean train.num_steps?"},
      {"model.num_kv_heads=3",
       "num_heads / num_kv_heads = 4 / 3 is not whole; legal num_kv_heads: 1, 2, 4"},
      {"run.output=", "expected a text, got an empty one"},
      {"run.output=a\nb", "must be one line without control characters, got a\\x0ab"},
      {"run.output=\xff", "is not UTF-8"},
  };
  for (const Case& each : cases) {
    std::string shown = each.argument;
    if (const auto newline = shown.find('\n'); newline != std::string::npos) {
      shown.replace(newline, 1, "\\x0a");
    }
    EXPECT_EQ(mistakes_after("", {each.argument}),
              "command line: " + shown + ": " + std::string(each.problem));
  }
}

TEST(ConfigFile, AListOfMapsInEveryForm) {
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
TEST(ConfigFile, AKeyWithAnEarlierNameIsReadUnderBoth) {
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

TEST(ConfigFile, MistakesInListsAndGroups) {
  struct Case {
    std::string_view appended;
    std::string_view message;
  };
  const Case cases[] = {
      {"model:\n  attention:\n    - {kind: windw}\n",
       "a.yaml:7:14: model.mixer.0.kind: 'windw' is not a choice; use full, window, linear, "
       "retention, lightning, ssd, delta or gated_delta; did you mean window?"},
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
       "a.yaml:5:16: model.mixer: entry 1: sinks = 1 counts only with kind full or window, not "
       "with "
       "ssd; leave it out or change the kind"},
      {"model: {mixer: {kind: ssd, negative_eigenvalues: true}}\n",
       "a.yaml:5:16: model.mixer: negative_eigenvalues counts only with kind delta or gated_delta, "
       "not with ssd; leave it out or change the kind"},
      {"model: {mixer: {kind: delta, heads: 6, groups: 4}}\n",
       "a.yaml:5:16: model.mixer: heads / groups = 6 / 4 is not whole; legal groups: 1, 2, 3, 6"},
      {"model: {mixer: {kind: retention, key_width: 10}}\n",
       "a.yaml:5:16: model.mixer: key_width = 10 of a retention is not head_dim = 64, as wide as "
       "rotary positions turn; leave it out, or choose another model.position"},
      {"model: {attention: [{}, {window: 8}]}\n",
       "a.yaml:5:20: model.mixer: entry 1: window = 8 counts only with kind window, not with "
       "full; leave it out or change the kind"},
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
            "not a choice; use full, window, linear, retention, lightning, ssd, delta or "
            "gated_delta; did you mean window?");
  EXPECT_EQ(mistakes_after("", {"model.rope_scaling.factor=2", "model.rope_scaling=linear"}), "");
}

// The two kinds of list that hold plain values.
TEST(ConfigFile, ListsOfIntegersAndChoices) {
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
TEST(ConfigFile, WhatASavedTextSets) {
  const ConfigValues expected = {{"run.precision", "bf16"},
                                 {"model.hidden", "64"},
                                 {"model.rope_scaling.factor", "2.5"},
                                 {"model.mixer", "[{kind: window, window: 9}]"},
                                 {"optimizer.learning_rate", "0.0006"},
                                 {"capture.tensors", "all"}};
  EXPECT_EQ(saved_values("model:\n  hidden: +64\n  rope_scaling:\n    factor: 2.50\n    gone: 1\n"
                         "  attention: [{kind: window, window: 9}]\n"
                         "optimizer: {learning_rate: 6e-4, schedule: sawtooth}\n"
                         "evaluate: {num_batches: 4}\ncapture: {tensors: all}\n"
                         "gone: {key: 1}\nrun: {precision: bf16}\n"),
            expected);
  EXPECT_TRUE(saved_values("").empty());
  const Config config;
  EXPECT_EQ(text_of(config).values_of(text_of(config).yaml).size(), schema().size() - 2)
      << "all but the two that have no default";
}

TEST(ConfigFile, RanksThatDoNotFit) {
  const auto problems = [](std::string_view appended, std::int64_t num_ranks) {
    return validate_for_ranks(load_config(std::string(smallest) + std::string(appended), "a.yaml"),
                              num_ranks);
  };
  using Lines = std::vector<std::string>;
  EXPECT_EQ(problems("", 4), Lines{});
  EXPECT_EQ(problems("", 3),
            Lines{"a.yaml:1:1: train.global_batch: global_batch / data = 8 / 3 is not whole; make "
                  "global_batch 6 or 9"});
  EXPECT_EQ(
      problems("train: {global_batch: 16, micro_batch: 8}\n", 4),
      Lines{"a.yaml:5:23: train.global_batch: global_batch / (data x micro_batch) = 16 / (4 x "
            "8) is not whole; make global_batch 32"});
  // Ranks without experts are legal, and so is a warm-up longer than the run.
  EXPECT_EQ(problems("parallel: {expert: 4}\nexperts: {num_experts: 3}\n", 4), Lines{});
  EXPECT_EQ(problems("train: {num_steps: 10}\n", 4), Lines{});
  EXPECT_EQ(problems("parallel: {context: {ulysses: 4}}\nmodel: {num_heads: 6, head_dim: 32, "
                     "num_kv_heads: 2}\n",
                     4),
            Lines{"a.yaml:5:31: parallel.context.ulysses: 4 ranks cannot share 6 heads and 2 kv "
                  "heads: it must divide model.num_heads, and divide model.num_kv_heads or be a "
                  "multiple of it; ulysses may be 1, 2, 6"});
  EXPECT_EQ(problems("model: {mixer: {kind: ssd}}\nnumerics: {exact: true}\n", 1),
            Lines{"a.yaml:5:16: model.mixer: a recurrence adds up its chunks from where a rank's "
                  "part of a sequence begins, so that its last bits depend on the layout, and "
                  "numerics.exact forbids that; write mixers of kind full or window, or "
                  "numerics.exact: false"});
  EXPECT_EQ(problems("model: {mixer: {conv: 4}}\nnumerics: {exact: true}\n", 1),
            Lines{"a.yaml:5:16: model.mixer: the gradient of a convolution's taps is summed over "
                  "a rank's rows in fp32, so that its last bits depend on the layout, and "
                  "numerics.exact forbids that; leave conv out, or write numerics.exact: false"});
  // Tokens of a micro-batch and rows of a rank have 32-bit numbers.
  EXPECT_EQ(
      problems("model: {sequence_length: 1000000}\ntrain: {global_batch: 4000, micro_batch: "
               "4000}\nparallel: {expert: 1}\n",
               1),
      Lines{"a.yaml:6:42: train.micro_batch: micro_batch x sequence_length = 4000 x 1000000 = "
            "4000000000 tokens of a micro-batch; at most 2147483647 can be numbered, so make "
            "train.micro_batch or model.sequence_length smaller"});
  const Lines rows = problems(
      "model: {sequence_length: 1000000}\ntrain: {global_batch: 4000, "
      "micro_batch: 1000}\nparallel: {expert: 4}\n",
      4);
  ASSERT_EQ(rows.size(), 1);
  EXPECT_TRUE(rows[0].starts_with("a.yaml:6:42: train.micro_batch: of 1000000000 tokens "))
      << rows[0];
  // They suffice where the ranks share each sequence.
  EXPECT_EQ(problems("model: {sequence_length: 1000000}\ntrain: {global_batch: 1000, micro_batch: "
                     "500}\nparallel: {expert: 4, context: 4}\n",
                     4),
            Lines{});
  // A line for each way to share a sequence of 30 among 4 ranks.
  const Lines length = problems("model: {sequence_length: 30}\nparallel: {context: 4}\n", 4);
  ASSERT_FALSE(length.empty());
  for (const std::string& line : length)
    EXPECT_EQ(line.substr(0, 36), "a.yaml:6:21: parallel.context.ranks:");
  EXPECT_EQ(
      problems("model: {sequence_length: 30}\nparallel: {context: {ranks: 4, pad: true}}\n", 4),
      Lines{});
  const Lines mesh = problems("parallel: {data: 3}\n", 4);
  ASSERT_EQ(mesh.size(), 1U);
  EXPECT_EQ(mesh[0].substr(0, 27), "a.yaml:5:18: parallel.data:");
  EXPECT_NE(mesh[0].find("4"), std::string::npos);
  EXPECT_THROW(require_valid_for_ranks(load_config(smallest, "a.yaml"), 3), ConfigError);
}

// Of the keys in the equation the one that was set last, whatever else is set.
TEST(ConfigFile, RanksThatDoNotFitAreTheFaultOfAKeyOfTheEquation) {
  // "command line: KEY=VALUE" of the only mistake.
  const auto place = [](std::string_view appended, const std::vector<std::string>& overrides) {
    const std::vector<std::string> lines = validate_for_ranks(
        load_config(std::string(smallest) + std::string(appended), "a.yaml", overrides), 4);
    return lines.size() == 1 ? lines[0].substr(0, lines[0].find(": ", 14)) : "several";
  };
  EXPECT_EQ(place("", {"parallel.expert=1", "parallel.context=3", "parallel.bucket_megabytes=9"}),
            "command line: parallel.context=3");
  EXPECT_EQ(place("", {"parallel.data=3", "parallel.expert=1"}), "command line: parallel.data=3");
  EXPECT_EQ(place("", {"parallel.data=4", "parallel.context=2", "parallel.expert=2"}),
            "command line: parallel.context=2");
  EXPECT_EQ(place("", {"parallel.context=2", "parallel.data=4"}), "command line: parallel.data=4");
  EXPECT_EQ(place("", {"parallel.context=2", "parallel.context.ring=4", "parallel.data=1"}),
            "command line: parallel.context.ring=4");
  EXPECT_EQ(place("parallel: {expert: 1, context: {ring: 2, ulysses: 2}}\n", {"parallel.data=2"}),
            "command line: parallel.data=2");
  EXPECT_EQ(validate_for_ranks(
                load_config(smallest, "a.yaml",
                            std::vector<std::string>{"parallel.expert=3", "parallel.context=2"}),
                4),
            std::vector<std::string>{"command line: parallel.expert=3: 3 does not divide data 2 x "
                                     "context 2 (ring 2 x ulysses 1) = 4 ranks; expert may be 1, 2 "
                                     "or 4"});
  // So it is with other relations: the file was right until somebody changed a part.
  EXPECT_EQ(mistakes_after("experts: {num_experts: 4, top_k: 2}\n", {"experts.num_experts=1"}),
            "command line: experts.num_experts=1: top_k = 2 is more than num_experts = 1; lower "
            "top_k or add experts");
}

TEST(ConfigFile, AVocabularyBelowTheTokenizers) {
  const auto message = [](const std::vector<std::string>& overrides) -> std::string {
    const std::string text = std::string(smallest) + "model: {vocab_size: 200}\n";
    try {
      require_valid_for_vocabulary(load_config(text, "a.yaml", overrides), 257);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  const std::string problem =
      "vocab_size = 200, but the tokenizer of a.h5 has 257 tokens; write 0 (the tokenizer's) or at "
      "least 257";
  EXPECT_EQ(message({}), "a.yaml:5:21: model.vocab_size: " + problem);
  EXPECT_EQ(message({"model.vocab_size=200"}), "command line: model.vocab_size=200: " + problem);
  EXPECT_EQ(message({"model.vocab_size=257"}), "");
  EXPECT_EQ(message({"model.vocab_size=0"}), "");
}

// Files with random bytes exchanged, left out or doubled: read, or refused with a message.
TEST(ConfigFile, DamagedFilesDoNoHarm) {
  const std::string whole =
      std::string(smallest) +
      "  mixture: \"a.h5 1, b.h5 2\"\n"
      "model: {hidden: 64, num_layers: 2, mixer: [{kind: window, window: 8}, {kind: full}]}\n"
      "experts:\n  top_k: 2\n  router: {score: sigmoid}\n# words\nparallel:\n  context: 2\n";
  ASSERT_EQ(mistakes_of(whole), "");
  const RandomKey key = random_key(23, "damage");
  int num_read = 0;
  for (std::uint64_t trial = 0; trial < 5000; ++trial) {
    std::string text = whole;
    for (std::uint64_t change = 0; change <= trial % 4; ++change) {
      const auto words = random_words(key, trial, change);
      const std::size_t at = words[0] % text.size();
      if (words[1] % 4 == 0)
        text.erase(at, words[2] % 9);
      else if (words[1] % 4 == 1)
        text.insert(at, text.substr(words[2] % text.size(), words[3] % 30));
      else
        text[at] = static_cast<char>(words[2]);
      if (text.empty()) text = " ";
    }
    const std::string mistakes = mistakes_of(text);
    num_read += mistakes.empty() ? 1 : 0;
  }
  EXPECT_GT(num_read, 5);
  EXPECT_LT(num_read, 4000);
}

}  // namespace
}  // namespace switchyard
