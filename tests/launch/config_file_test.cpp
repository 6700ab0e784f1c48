// Reading a configuration: each kind of mistake with its exact text and place.
#include "launch/config/config_file.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

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
