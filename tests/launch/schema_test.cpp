// The table of keys: round trips through YAML, the document, suggestions, and random damage.
#include "launch/config/schema.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <random>
#include <set>
#include <sstream>

#include "launch/command_line.hpp"
#include "launch/commands/commands.hpp"
#include "launch/config/document.hpp"
#include "launch/config/list_value.hpp"
#include "launch/config/value.hpp"
#include "launch/suggestion.hpp"
#include "tests/launch/config_cases.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard {
namespace {

// Keys whose values are tied to others; the random test leaves these at their defaults.
const std::set<std::string> related = {"model.hidden",
                                       "model.num_heads",
                                       "model.num_kv_heads",
                                       "model.head_dim",
                                       "experts.num_experts",
                                       "experts.top_k",
                                       "experts.every",
                                       "experts.first_dense",
                                       "experts.balance_scope",
                                       "experts.balance_loss",
                                       "experts.bias_rule",
                                       "numerics.exact",
                                       "model.feed_forward",
                                       "model.position.buckets",
                                       "model.position.max_distance",
                                       "checkpoint.start_from",
                                       "checkpoint.start_with",
                                       "experts.shared.gate",
                                       "experts.drop_by",
                                       "experts.capacity_padding",
                                       "data.mixture",
                                       "experts.placement.order",
                                       "experts.placement.replicas",
                                       "experts.max_rows",
                                       "experts.dispatch.kind",
                                       "experts.dispatch.ranks_per_node",
                                       "experts.dispatch.return",
                                       "experts.dispatch.wire",
                                       "experts.router.kind",
                                       "experts.router.score",
                                       "experts.router.softmax_over",
                                       "experts.router.groups",
                                       "experts.router.top_groups",
                                       "experts.router.capacity",
                                       "model.num_layers",
                                       "activations.layers",
                                       "activations.memory_megabytes",
                                       "capture.layers",
                                       "trace.routing",
                                       "trace.steps",
                                       "train.global_batch",
                                       "train.micro_batch",
                                       "train.num_steps",
                                       "optimizer.warmup_steps",
                                       "optimizer.decay_steps",
                                       "optimizer.learning_rate",
                                       "optimizer.min_learning_rate",
                                       "run.device",
                                       "model.mixer",
                                       "model.latent.kv_rank",
                                       "model.position.kind",
                                       "model.rope_scaling.kind",
                                       "model.rope_scaling.factor",
                                       "model.rope_scaling.beta_fast",
                                       "model.rope_scaling.beta_slow",
                                       "parallel.context.ranks"};

std::string random_text(std::mt19937_64& random) {
  const std::string letters = "abz019 _-./:#'\"\\{}[]&*!|>%@`,?~=\xc3\xa9";
  std::string text;
  const std::size_t length = 1 + random() % 12;
  for (std::size_t i = 0; i < length; ++i) {
    const std::size_t at = random() % (letters.size() - 1);
    text += at == letters.size() - 2 ? letters.substr(at) : letters.substr(at, 1);
  }
  return text;
}

std::string random_value(const Key& key, std::mt19937_64& random);

// The word for an empty list, or one element: what stands without brackets.
std::string random_list(const Key& key, std::mt19937_64& random) {
  if (!key.empty_word.empty() && random() % 3 == 0) return std::string(key.empty_word);
  if (!key.choices().empty()) return std::string(key.choices()[random() % key.choices().size()]);
  Key element = key;
  element.field = find_key("run.seed")->field;
  return random_value(element, random);
}

// A legal value of the key, as text.
std::string random_value(const Key& key, std::mt19937_64& random) {
  if (key.type_name().starts_with("list of")) return random_list(key, random);
  if (key.type_name() == "boolean") return random() % 2 == 0 ? "true" : "false";
  if (!key.choices().empty()) return std::string(key.choices()[random() % key.choices().size()]);
  if (key.type_name() == "text") {
    const std::string text = random_text(random);
    // A path that begins so means the home folder, and reads back as that.
    return key.is_path() && text.starts_with('~') ? "./" + text : text;
  }
  const double least = key.range.least;
  const double most = std::min(key.range.most, least + 1e6);
  const double share = std::generate_canonical<double, 53>(random);
  std::ostringstream text;
  text.precision(17);
  if (key.type_name() == "integer") {
    text << static_cast<std::int64_t>(least + share * (most - least));
  } else {
    text << least + (0.5 + share / 3) * (most - least) * (random() % 2 == 0 ? 1 : 1e-9);
  }
  return text.str();
}

bool same(const Config& left, const Config& right) {
  for (const Key& key : schema()) {
    if (!same_value(left, right, key)) {
      ADD_FAILURE() << key.path() << ": " << format_value(left, key) << " is not "
                    << format_value(right, key);
      return false;
    }
  }
  return true;
}

TEST(Schema, KeysAreUniqueDescribedAndInAKnownSection) {
  std::set<std::string> paths;
  for (const Key& key : schema()) {
    EXPECT_TRUE(paths.insert(key.path()).second) << key.path();
    EXPECT_TRUE(is_section(key.section)) << key.path();
    EXPECT_FALSE(key.description.empty()) << key.path();
    EXPECT_EQ(find_key(key.path()), &key);
  }
}

template <class Value>
const void* address_of(Value&& field) {
  if constexpr (requires { field.address(); })
    return field.address();
  else
    return &field;
}

// Each key must reach a field of its own.
TEST(Schema, NoTwoKeysShareAField) {
  Config config;
  std::set<const void*> fields;
  for (const Key& key : schema()) {
    const void* field =
        std::visit([&](auto access) { return address_of(access(config)); }, key.field);
    EXPECT_TRUE(fields.insert(field).second) << key.path();
  }
}

TEST(Schema, DefaultsAreLegal) {
  const Config defaults;
  for (const Key& key : schema()) {
    if (key.is_required) continue;
    Config config;
    if (is_list(key)) {
      std::vector<ValueMistake> mistakes;
      assign_list_text(config, key, format_value(defaults, key), mistakes);
      EXPECT_TRUE(mistakes.empty()) << key.path();
    } else {
      EXPECT_EQ(assign_value(config, key, format_value(defaults, key)), std::nullopt) << key.path();
    }
  }
}

TEST(Schema, EffectiveYamlReadsBackToTheSameConfig) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    Config config;
    for (const Key& key : schema()) {
      if (related.count(key.path()) > 0) continue;
      const std::string value = random_value(key, random);
      ASSERT_EQ(assign_value(config, key, value), std::nullopt) << key.path() << " = " << value;
    }
    const std::string yaml = to_yaml(config);
    const LoadedConfig loaded = load_config(yaml, "effective.yaml");
    ASSERT_TRUE(same(config, loaded.config)) << yaml;
    ASSERT_EQ(to_yaml(loaded.config), yaml);
    ASSERT_TRUE(same(config, load_config(to_yaml_with_origins(loaded), "origins.yaml").config));
  }
}

TEST(Schema, ListsOfMapsReadBack) {
  std::mt19937_64 random(8);
  const Key& list = *find_key("model.mixer");
  ASSERT_EQ(list.type_name(), "list of maps");
  for (int round = 0; round < 100; ++round) {
    Config config;
    config.model.num_layers = 8;
    config.model.mixer.clear();
    const std::size_t num_entries = 1 + random() % 8;
    for (std::size_t i = 0; i < num_entries; ++i) {
      MixerConfig entry;
      if (random() % 2 == 0)
        entry = {.kind = MixerKind::window,
                 .window = static_cast<std::int64_t>(1 + random() % 1000)};
      entry.sinks = static_cast<std::int64_t>(random() % 3);
      config.model.mixer.push_back(entry);
    }
    const std::string required = "\nrun: {output: a}\ndata: {path: b}\n";
    const std::string text = "model:\n  num_layers: 8\n  attention: " + format_value(config, list);
    EXPECT_EQ(load_config(text + required, "a.yaml").config.model.mixer, config.model.mixer);
    const std::vector<std::string> overrides = {"model.num_layers=8",
                                                "model.mixer=" + format_value(config, list)};
    EXPECT_EQ(load_config(required, "a.yaml", overrides).config.model.mixer, config.model.mixer);
  }
}

TEST(Schema, DocumentIsCurrent) {
  const std::string path = SWITCHYARD_SOURCE_DIR "/docs/configuration.md";
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(text.str() == configuration_document())
      << path << " is not current; write it again with\n"
      << "  switchyard config --document > docs/configuration.md";
}

TEST(Schema, ShippedConfigurationsLoad) {
  for (const char* name :
       {"/configs/tiny.yaml", "/configs/long_context.yaml", "/configs/bench/moe_216m.yaml"}) {
    const LoadedConfig loaded = read_config(std::string(SWITCHYARD_SOURCE_DIR) + name);
    EXPECT_TRUE(validate_for_ranks(loaded, 2).empty()) << name;
    EXPECT_TRUE(same(loaded.config, load_config(to_yaml(loaded.config), "again").config)) << name;
  }
}

TEST(Suggestion, OnlyWhatIsNear) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("trian", "train"), 1);
  constexpr std::string_view words[] = {"num_layers", "learning_rate", "hidden"};
  EXPECT_EQ(nearest("NumLayers", words), "num_layers");
  EXPECT_EQ(nearest("layers", words), "num_layers");
  EXPECT_EQ(nearest("lr", words), "learning_rate");
  EXPECT_EQ(nearest("hdiden", words), "hidden");
  EXPECT_EQ(nearest("xyzzy", words), std::nullopt);
  EXPECT_EQ(nearest("", words), std::nullopt);
  EXPECT_EQ(nearest(std::string(100'000, 'h'), words), std::nullopt);
}

TEST(Suggestion, AWordThatIsNoChoiceIsToldWithTheChoices) {
  constexpr std::string_view words[] = {"auto", "ring", "all_gather"};
  EXPECT_EQ(unknown_choice("foo", words), "'foo' is not a choice; use auto, ring or all_gather");
  EXPECT_EQ(unknown_choice("rign", std::span(words).first(2)),
            "'rign' is not a choice; use auto or ring; did you mean ring?");
  EXPECT_EQ(unknown_choice("foo", std::span(words).first(1)), "'foo' is not a choice; use auto");
}

// A valid file with all keys, one section in flow style.
std::string valid_text() {
  Config config;
  config.run.output = "runs/a";
  config.data.path = "a b.h5";
  return to_yaml(config) + "# end\n";
}

std::string mutated(std::string text, std::mt19937_64& random) {
  const std::vector<std::string> pieces = {
      ":", "\n",  "  ",   "\t",   "[",    "]",     "{",      "}", "\"",
      "'", "&a ", "*a",   "#",    "- ",   "---\n", "!!str ", "|", ">",
      "%", "? ",  "<<: ", "\xff", "\x04", "0",     "1e309",  "~", "\r"};
  const std::size_t num_changes = 1 + random() % 4;
  for (std::size_t i = 0; i < num_changes; ++i) {
    const std::size_t at = random() % (text.size() + 1);
    const std::size_t length = random() % 20;
    switch (random() % 5) {
      case 0:
        text.insert(at, pieces[random() % pieces.size()]);
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(at, text.substr(random() % (text.size() + 1), length));
        break;
      case 3:
        if (at < text.size()) text[at] = static_cast<char>(random() % 256);
        break;
      default:
        if (random() % 10 == 0) text.resize(at);
    }
  }
  return text;
}

TEST(Fuzz, DamagedFilesLoadOrGiveAConfigError) {
  std::mt19937_64 random(11);
  const std::string valid = valid_text();
  int num_loaded = 0;
  int num_refused = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string text = mutated(valid, random);
    try {
      const LoadedConfig loaded = load_config(text, "a.yaml");
      ASSERT_TRUE(same(loaded.config, load_config(to_yaml(loaded.config), "again").config)) << text;
      ++num_loaded;
    } catch (const ConfigError& error) {
      std::istringstream lines(error.what());
      for (std::string line; std::getline(lines, line);) {
        EXPECT_EQ(line.substr(0, 7), "a.yaml:") << line;
      }
      ++num_refused;
    }
  }
  EXPECT_GT(num_loaded, 100);
  EXPECT_GT(num_refused, 500);
}

TEST(Fuzz, DeepNestingIsAnErrorAndNotACrash) {
  EXPECT_NE(mistakes_of(std::string(100'000, '[')), "");
  EXPECT_NE(mistakes_of(std::string(100'000, '{')), "");
  std::string nested;
  for (int depth = 0; depth < 2000; ++depth) nested += std::string(depth, ' ') + "a:\n";
  EXPECT_NE(mistakes_of(nested), "");
}

// What `switchyard plan` says of a configuration: nothing if it prints a plan, or its mistake. Any
// other exception is one.
std::string mistake_of_plan(const std::string& path, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {path, "--json"});
  std::ostringstream plan;
  std::streambuf* const before = std::cout.rdbuf(plan.rdbuf());
  std::string mistake;
  try {
    CommandContext context;
    context.arguments = arguments;
    run_plan(context);
    EXPECT_NE(plan.str().find("\"step_flops\""), std::string::npos);
  } catch (const ConfigError& error) {
    mistake = error.what();
  } catch (const MemoryError& error) {
    mistake = error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << fmt::format("plan {}: {}", fmt::join(arguments, " "), error.what());
  }
  std::cout.rdbuf(before);
  for (const char* overflow : {"null", ": -"})  // figures are finite and not below 0
    EXPECT_EQ(plan.str().find(overflow), std::string::npos)
        << fmt::format("plan {}:\n{}", fmt::join(arguments, " "), plan.str());
  return mistake;
}

// The least and the most that a key of whole numbers may have.
std::vector<std::string> extremes_of(const Key& key) {
  const double most =
      std::min(key.range.most, 9223372036854774784.0);  // the last double of 63 bits
  return {std::to_string(static_cast<std::int64_t>(key.range.least)),
          std::to_string(static_cast<std::int64_t>(most))};
}

TEST(Schema, EveryWholeNumberAtItsExtremesIsPlannedOrRefused) {
  test::TemporaryFolder folder;
  const std::string path = folder / "a.yaml";
  test::write_contents(path, std::string(smallest) + "model: {vocab_size: 300}\n");
  // All keys on one rank; on several those that say how ranks share.
  const std::vector<std::vector<std::string>> bases = {
      {}, {"--ranks", "8", "parallel.context=4", "parallel.expert=8", "train.global_batch=2"}};
  std::size_t num_plans = 0;
  for (const std::vector<std::string>& base : bases)
    for (const Key& key : schema()) {
      if (!base.empty() && key.section != "parallel" && key.section != "train") continue;
      std::vector<std::string> values;
      if (key.type_name() == "integer" || key.type_name() == "list of integers")
        values = extremes_of(key);
      if (key.path() == "model.vocab_size") values.erase(values.begin());  // 0 asks the token file
      for (const Key& element : key.elements)
        if (element.type_name() == "integer")
          for (const std::string& value : extremes_of(element))
            values.push_back(fmt::format(
                "{{kind: {}, {}: {}}}",
                element.name == "window" && value != "0" ? "window" : "full", element.name, value));
      for (const std::string& value : values) {
        std::vector<std::string> arguments = base;
        arguments.push_back(key.path() + "=" + value);
        const std::string mistake = mistake_of_plan(path, arguments);
        EXPECT_EQ(mistake.find("internal"), std::string::npos) << mistake;
        ++num_plans;
      }
    }
  EXPECT_GT(num_plans, 80u);
  EXPECT_NE(mistake_of_plan(path, {"model.sequence_length=2147483647"})
                .find("make train.micro_batch or model.sequence_length smaller"),
            std::string::npos);
}

}  // namespace
}  // namespace switchyard
