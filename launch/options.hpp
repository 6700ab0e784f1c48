// The options and arguments of one command, and their help text. Targets are variables of the
// caller that keep their value when an option is not given, so a default is written once, where the
// variable is.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/group/collective_error.hpp"
#include "tensor/choice.hpp"
#include "tensor/error.hpp"

namespace switchyard {

// A command line that cannot be right. All ranks of a job see the same one, so one report is
// enough.
class UsageError : public ConfigError, public KnownToAllRanks {
 public:
  UsageError(std::string command, const std::string& message)
      : ConfigError(message), command_(std::move(command)) {}
  // The command whose help tells more; empty: the program's.
  const std::string& command() const { return command_; }

 private:
  std::string command_;
};

// A limit in seconds that a command takes: UsageError unless it is 0 or more.
void require_limit(const std::string& command, double seconds);

class Options {
 public:
  // synopsis: what follows the command's name, "CONFIG [key.path=value ...]".
  Options(std::string command, std::string synopsis, std::string description);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  // Option `--name` with a value (shown as `value` in the help) or, for a bool, without.
  Options& add(std::string_view name, bool& target, std::string_view help);
  Options& add(std::string_view name, std::string_view value, std::string& target,
               std::string_view help);
  Options& add(std::string_view name, std::string_view value, std::int64_t& target,
               std::string_view help);
  Options& add(std::string_view name, std::string_view value, double& target,
               std::string_view help);
  // A text that names a file or folder: "~/" at its beginning is the home folder.
  Options& add_path(std::string_view name, std::string_view value, std::string& target,
                    std::string_view help);
  // The same; the target stays empty when the option is not given.
  Options& add(std::string_view name, std::string_view value, std::optional<std::string>& target,
               std::string_view help);
  Options& add(std::string_view name, std::string_view value, std::optional<std::int64_t>& target,
               std::string_view help);
  // One of an enum's names; `target`: the enum or an optional of it.
  template <Choice Value>
  Options& add(std::string_view name, std::string_view value, Value& target,
               std::string_view help) {
    return add_choice(name, value, names_of_choices<Value>, help,
                      [&target](std::size_t choice) { target = static_cast<Value>(choice); });
  }
  template <Choice Value>
  Options& add(std::string_view name, std::string_view value, std::optional<Value>& target,
               std::string_view help) {
    return add_choice(name, value, names_of_choices<Value>, help,
                      [&target](std::size_t choice) { target = static_cast<Value>(choice); });
  }
  // All arguments without a name go to `target`; there must be `least` to `most` of them. They are
  // paths or cannot begin with "~".
  Options& arguments(std::string_view what, std::vector<std::string>& target, std::size_t least = 0,
                     std::size_t most = 1'000'000);

  // Fills the targets. False: help was asked for and has been printed; the command returns 0.
  // UsageError names the option and, for an unknown one, the nearest.
  bool parse(const std::vector<std::string>& arguments);

  std::string help() const;

 private:
  // set: takes the number of the chosen name.
  Options& add_choice(std::string_view name, std::string_view value,
                      std::span<const std::string_view> choices, std::string_view help,
                      std::function<void(std::size_t)> set);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
