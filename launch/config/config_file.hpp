// From a YAML text and overrides of the command line to a Config. All mistakes are found at once
// and come in one ConfigError, a line each:
//     FILE:LINE:COLUMN: KEY: what is wrong, what would be right
//     command line: KEY=VALUE: what is wrong, what would be right
// before any group or buffer exists. A LoadedConfig remembers where each value came from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/config/schema.hpp"
#include "parallel/group/group.hpp"
#include "trainer/config_text.hpp"

namespace switchyard {

struct Origin {
  enum class Kind : std::uint8_t { default_value, file, command_line };
  Kind kind = Kind::default_value;
  int line = 0;  // of the value in the file, from 1
  int column = 0;
  int number = 0;        // of the argument on the command line, from 1
  std::string argument;  // as typed, "train.num_steps=10"
};

struct LoadedConfig {
  Config config;
  std::string path;             // of the file, as given
  std::vector<Origin> origins;  // of each key, as in schema()
  std::vector<std::string>
      warnings{};  // what is legal and seldom meant, a line each, with its place

  const Origin& origin(const Key& key) const { return origins[index_of(key)]; }
  // "tiny.yaml:4:11", "command line: train.num_steps=10" or "default".
  std::string origin_text(const Key& key) const;
};

// `overrides` are "key.path=value"; the value is taken as it stands, and the last of several for
// one key counts. `path` is only for messages.
LoadedConfig load_config(std::string_view text, const std::string& path,
                         std::span<const std::string> overrides = {});

// A configuration that this program or an earlier version wrote, as a checkpoint keeps it.
LoadedConfig load_saved_config(std::string_view text, const std::string& path);

// What such a text sets, by path, as to_yaml() writes it; what this version does not know is left
// out, and nothing is checked between keys.
ConfigValues saved_values(std::string_view text);

// The text of a configuration file (a regular file or a pipe). ConfigError if there is none.
std::string read_config_text(const std::string& path);
LoadedConfig read_config(const std::string& path, std::span<const std::string> overrides = {});

// What is wrong with the configuration for this number of ranks, a line a mistake; empty if
// nothing.
std::vector<std::string> validate_for_ranks(const LoadedConfig& loaded, std::int64_t num_ranks);
// The same as one ConfigError.
void require_valid_for_ranks(const LoadedConfig& loaded, std::int64_t num_ranks);

// The warnings, for the person who gave the configuration; to the standard error.
void print_warnings(const LoadedConfig& loaded);

// ConfigError if model.vocab_size cannot hold the tokens of the tokenizer of data.path.
void require_valid_for_vocabulary(const LoadedConfig& loaded, std::int64_t num_tokens);

// Rank 0 reads and checks, for the ranks of this world, and all ranks get the same configuration,
// or all throw the same CollectiveError. Only rank 0 touches the file; its overrides count.
LoadedConfig load_config_collectively(Group& world, const std::string& path,
                                      std::span<const std::string> overrides);

// The complete configuration as YAML, which load_config reads back to the same Config.
std::string to_yaml(const Config& config);
// The same for what keeps it and compares it with others.
ConfigText text_of(const Config& config);
// The same with the origin of each value as a comment.
std::string to_yaml_with_origins(const LoadedConfig& loaded);

}  // namespace switchyard
