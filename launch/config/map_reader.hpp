// Reads a YAML tree of keys that are not those of a configuration, and collects what is wrong with
// it: each mistake names its key by its path, as "study.seeds". A Reader fills one target; it keeps
// the target by reference.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launch/config/value.hpp"
#include "launch/config/yaml_tree.hpp"
#include "launch/suggestion.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

using Reader = std::function<void(const YamlNode&)>;
using Readers = std::map<std::string, Reader, std::less<>>;

class MapReader {
 public:
  void mistake(Place place, std::string text) { mistakes_.push_back({place, std::move(text)}); }
  std::vector<Mistake>& mistakes() { return mistakes_; }
  // One ConfigError with all mistakes, in the order of the file, if there are any.
  void throw_mistakes(const std::string& file);

  // Every key by its reader; a key that is missing though required, unknown or repeated is told.
  void read_map(const YamlNode& node, const std::string& path, const Readers& readers,
                const std::vector<std::string>& required = {});
  // Calls read(element) for each element of a list that must have some.
  void for_each_element(const YamlNode& node, const std::string& path, const Reader& read);

  std::optional<double> number(const YamlNode& node, const std::string& path, double least);
  std::optional<std::int64_t> whole(const YamlNode& node, const std::string& path,
                                    std::int64_t least, std::int64_t most);

  Reader text_into(std::string& target, std::string path);
  Reader path_into(std::string& target, std::string path);  // "~/" is the home folder
  Reader flag_into(bool& target, std::string path);
  Reader number_into(double& target, std::string path, double least);
  Reader whole_into(std::int64_t& target, std::string path, std::int64_t least, std::int64_t most);
  // A list without repeats.
  Reader wholes_into(std::vector<std::int64_t>& target, std::string path, std::int64_t least,
                     std::int64_t most);
  template <Choice Value>
  Reader choice_into(Value& target, std::string path) {
    return [this, &target, path = std::move(path)](const YamlNode& node) {
      if (const auto value = choice_of<Value>(node.text))
        target = *value;
      else
        mistake(node.place,
                path + ": " + unknown_choice(for_message(node.text), names_of_choices<Value>));
    };
  }

 private:
  std::vector<Mistake> mistakes_;
};

// A node that is a plain number, in digits alone.
std::optional<double> number_of(const YamlNode& node);

}  // namespace switchyard
