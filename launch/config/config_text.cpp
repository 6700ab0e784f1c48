#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "launch/config/config_file.hpp"
#include "launch/config/value.hpp"
#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

// "rope_scaling" of "rope_scaling.factor"; empty for a key that stands in no group.
std::string_view group_of(const Key& key) {
  const std::size_t dot = key.name.find('.');
  return dot == std::string_view::npos ? std::string_view{} : key.name.substr(0, dot);
}

// `line(key)` is the text of each key, indented by two or, in a group, by four.
template <class Line>
std::string by_section(const Line& line) {
  std::string text;
  for (const Section& section : sections()) {
    text += fmt::format("{}:\n", section.name);
    std::string_view group;
    for (const Key& key : schema()) {
      if (key.section != section.name) continue;
      if (group_of(key) != group && !group_of(key).empty())
        text += fmt::format("  {}:\n", group_of(key));
      group = group_of(key);
      text += fmt::format("  {}\n", line(key));
    }
  }
  return text;
}

std::string key_and_value(const Config& config, const Key& key) {
  const std::string_view group = group_of(key);
  return group.empty() ? fmt::format("{}: {}", key.name, format_value(config, key))
                       : fmt::format("  {}: {}", key.name.substr(group.size() + 1),
                                     format_value(config, key));
}

}  // namespace

std::string read_config_text(const std::string& path) {
  constexpr std::size_t most_bytes = std::size_t{1} << 20;
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    throw ConfigError(
        fmt::format("{}: cannot read the configuration: {}", path, std::strerror(errno)));
  }
  if (S_ISDIR(status.st_mode)) {
    const std::string inside = path + (path.ends_with('/') ? "" : "/") + "config.yaml";
    throw ConfigError(fmt::format("{}: is a folder, not a configuration file{}", path,
                                  ::access(inside.c_str(), R_OK) == 0
                                      ? fmt::format("; the configuration of that run is {}", inside)
                                      : ""));
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (!file) {
    throw ConfigError(
        fmt::format("{}: cannot read the configuration: {}", path, std::strerror(errno)));
  }
  std::string text(most_bytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) {
    throw ConfigError(
        fmt::format("{}: cannot read the configuration: {}", path, std::strerror(errno)));
  }
  if (text.size() > most_bytes) {
    throw ConfigError(fmt::format("{}: has more than 1 MiB; this is no configuration", path));
  }
  return text;
}

LoadedConfig read_config(const std::string& path, std::span<const std::string> overrides) {
  return load_config(read_config_text(path), path, overrides);
}

std::string to_yaml(const Config& config) {
  return by_section([&](const Key& key) { return key_and_value(config, key); });
}

ConfigText text_of(const Config& config) {
  return {.yaml = to_yaml(config), .values_of = saved_values};
}

std::string to_yaml_with_origins(const LoadedConfig& loaded) {
  const auto value_text = [&](const Key& key) { return key_and_value(loaded.config, key); };
  std::size_t width = 0;
  for (const Key& key : schema()) width = std::max(width, value_text(key).size());
  return by_section([&](const Key& key) {
    return fmt::format("{:<{}}  # {}", value_text(key), width, loaded.origin_text(key));
  });
}

LoadedConfig load_config_collectively(Group& world, const std::string& path,
                                      std::span<const std::string> overrides) {
  // Rank 0's command line counts: one that differs between ranks must not split the job.
  std::string text;
  std::string shared_path = path;
  std::string problem;
  std::string joined;  // the overrides, each ended by a zero byte, which no argument can hold
  for (const std::string& argument : overrides) joined += argument + '\0';
  if (world.rank() == 0) {
    try {
      text = read_config_text(path);
      require_valid_for_ranks(load_config(text, path, overrides), world.size());
    } catch (const ConfigError& error) {
      problem = error.what();
    }
  }
  for (std::string* each : {&problem, &text, &shared_path, &joined}) {
    world.broadcast_text(*each, 0);
  }
  if (!problem.empty()) throw Collective<ConfigError>(problem);

  std::vector<std::string> shared_overrides;
  for (std::size_t begin = 0; begin < joined.size();) {
    const std::size_t end = joined.find('\0', begin);
    shared_overrides.push_back(joined.substr(begin, end - begin));
    begin = end + 1;
  }
  return load_config(text, shared_path, shared_overrides);
}

}  // namespace switchyard
