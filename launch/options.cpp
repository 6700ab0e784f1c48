#include "launch/options.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <sstream>
#include <utility>

#include "launch/home_folder.hpp"
#include "launch/suggestion.hpp"

namespace switchyard {

namespace po = boost::program_options;

void require_limit(const std::string& command, double seconds) {
  if (!(seconds >= 0 && seconds <= 1e9))
    throw UsageError(command, fmt::format("--limit must be 0 to 1e9 seconds, not {}", seconds));
}

struct Options::State {
  std::string command;
  std::string synopsis;
  std::string description;
  po::options_description visible{"Options"};
  std::vector<std::string> names;
  std::vector<std::function<void(const po::variables_map&)>> stores;
  std::string arguments_name;
  std::vector<std::string>* arguments = nullptr;
  std::vector<std::string*> paths;
  std::size_t least = 0;
  std::size_t most = 0;

  // store: takes the value of the option, if it is given.
  template <class Value, class Store>
  void add(std::string_view name, std::string_view value, std::string_view help, Store store) {
    const std::string key(name);
    names.push_back(key);
    visible.add_options()(key.c_str(), po::value<Value>()->value_name(std::string(value)),
                          std::string(help).c_str());
    stores.emplace_back([key, store = std::move(store)](const po::variables_map& given) {
      if (given.count(key) > 0) store(given[key].as<Value>());
    });
  }
  template <class Value, class Target>
  void add(std::string_view name, std::string_view value, Target& target, std::string_view help) {
    add<Value>(name, value, help, [&target](const Value& given) { target = given; });
  }

  [[noreturn]] void refuse(const std::string& problem) const { throw UsageError(command, problem); }
  void refuse_unknown(const std::string& name) const;
  void find_home(std::string& path) const;
  po::variables_map read(const std::vector<std::string>& texts) const;
};

void Options::State::refuse_unknown(const std::string& name) const {
  std::string word = name;
  word.erase(0, word.find_first_not_of('-'));
  word = word.substr(0, word.find('='));
  std::vector<std::string_view> candidates(names.begin(), names.end());
  const auto near = nearest(word, candidates);
  refuse(fmt::format("unknown option {}{}", name,
                     near ? fmt::format("; did you mean --{}?", *near) : ""));
}

void Options::State::find_home(std::string& path) const {
  HomePath found = with_home_folder(path);
  if (!found.problem.empty()) refuse(fmt::format("{}: {}", path, found.problem));
  path = std::move(found.path);
}

po::variables_map Options::State::read(const std::vector<std::string>& texts) const {
  po::options_description all = visible;
  po::positional_options_description positional;
  constexpr const char* unnamed = "switchyard-arguments";
  all.add_options()(unnamed, po::value<std::vector<std::string>>());
  positional.add(unnamed, -1);
  po::variables_map given;
  namespace style = po::command_line_style;
  // Whole names only: an abbreviation would change its meaning when an option is added.
  constexpr int long_options = style::allow_long | style::long_allow_adjacent |
                               style::long_allow_next | style::allow_short |
                               style::short_allow_next | style::allow_dash_for_short;
  try {
    po::store(po::command_line_parser(texts)
                  .options(all)
                  .positional(positional)
                  .style(long_options)
                  .run(),
              given);
  } catch (const po::unknown_option& error) {
    refuse_unknown(error.get_option_name());
  } catch (const po::invalid_option_value& error) {
    refuse(error.what());
  } catch (const po::multiple_occurrences& error) {
    refuse(fmt::format("option {} is given twice", error.get_option_name()));
  } catch (const po::error& error) {
    refuse(error.what());
  }
  if (arguments != nullptr && given.count(unnamed) > 0) {
    *arguments = given[unnamed].as<std::vector<std::string>>();
  } else if (arguments == nullptr && given.count(unnamed) > 0) {
    refuse(fmt::format("unexpected argument {}",
                       given[unnamed].as<std::vector<std::string>>().front()));
  }
  return given;
}

Options::Options(std::string command, std::string synopsis, std::string description)
    : state_(std::make_unique<State>()) {
  state_->command = std::move(command);
  state_->synopsis = std::move(synopsis);
  state_->description = std::move(description);
  state_->names.emplace_back("help");
  state_->visible.add_options()("help,h", "print this");
}

Options::~Options() = default;

Options& Options::add(std::string_view name, bool& target, std::string_view help) {
  const std::string key(name);
  state_->names.push_back(key);
  state_->visible.add_options()(key.c_str(), std::string(help).c_str());
  state_->stores.emplace_back([key, &target](const po::variables_map& given) {
    if (given.count(key) > 0) target = true;
  });
  return *this;
}

Options& Options::add(std::string_view name, std::string_view value, std::string& target,
                      std::string_view help) {
  state_->add<std::string>(name, value, target, help);
  return *this;
}

Options& Options::add_path(std::string_view name, std::string_view value, std::string& target,
                           std::string_view help) {
  state_->add<std::string>(name, value, target, help);
  state_->paths.push_back(&target);
  return *this;
}

Options& Options::add(std::string_view name, std::string_view value, std::int64_t& target,
                      std::string_view help) {
  state_->add<std::int64_t>(name, value, target, help);
  return *this;
}

Options& Options::add(std::string_view name, std::string_view value, double& target,
                      std::string_view help) {
  state_->add<double>(name, value, target, help);
  return *this;
}

Options& Options::add(std::string_view name, std::string_view value,
                      std::optional<std::string>& target, std::string_view help) {
  state_->add<std::string>(name, value, target, help);
  return *this;
}

Options& Options::add(std::string_view name, std::string_view value,
                      std::optional<std::int64_t>& target, std::string_view help) {
  state_->add<std::int64_t>(name, value, target, help);
  return *this;
}

Options& Options::add_choice(std::string_view name, std::string_view value,
                             std::span<const std::string_view> choices, std::string_view help,
                             std::function<void(std::size_t)> set) {
  state_->add<std::string>(
      name, value, help,
      [this, name = std::string(name), choices, set = std::move(set)](const std::string& word) {
        const auto found = std::ranges::find(choices, word);
        if (found == choices.end())
          state_->refuse(fmt::format("--{}: {}", name, unknown_choice(word, choices)));
        set(static_cast<std::size_t>(found - choices.begin()));
      });
  return *this;
}

Options& Options::arguments(std::string_view what, std::vector<std::string>& target,
                            std::size_t least, std::size_t most) {
  state_->arguments_name = std::string(what);
  state_->arguments = &target;
  state_->least = least;
  state_->most = most;
  return *this;
}

bool Options::parse(const std::vector<std::string>& arguments) {
  // Help wins over whatever else is wrong.
  for (const std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument == "--help" || argument == "-h") {
      std::fputs(help().c_str(), stdout);
      return false;
    }
  }
  const po::variables_map given = state_->read(arguments);
  for (const auto& store : state_->stores) store(given);
  for (std::string* path : state_->paths) state_->find_home(*path);
  if (state_->arguments != nullptr) {
    for (std::string& argument : *state_->arguments) state_->find_home(argument);
    const std::size_t count = state_->arguments->size();
    if (count < state_->least) {
      state_->refuse(fmt::format("{} is missing", state_->arguments_name));
    }
    if (count > state_->most) {
      state_->refuse(fmt::format("unexpected argument {}", (*state_->arguments)[state_->most]));
    }
  }
  return true;
}

std::string Options::help() const {
  std::ostringstream options;
  options << state_->visible;
  return fmt::format("switchyard {} {}\n\n{}\n\n{}", state_->command, state_->synopsis,
                     state_->description, options.str());
}

}  // namespace switchyard
