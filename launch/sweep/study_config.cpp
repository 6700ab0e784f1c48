#include "launch/sweep/study_config.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "launch/config/config_file.hpp"
#include "launch/config/list_value.hpp"
#include "launch/config/map_reader.hpp"
#include "launch/config/value.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t most_points = 100'000;  // of a list or of draws

// A node as the value of an override.
std::string override_text(const YamlNode& node) {
  std::vector<std::string> parts;
  switch (node.kind) {
    case YamlNode::Kind::scalar:
      return node.text;
    case YamlNode::Kind::list:
      for (const YamlNode& element : node.elements)
        parts.push_back(element.kind == YamlNode::Kind::scalar && element.quoted
                            ? quote_yaml(element.text)
                            : override_text(element));
      return fmt::format("[{}]", fmt::join(parts, ", "));
    case YamlNode::Kind::map:
      for (const auto& [key, value] : node.entries)
        parts.push_back(fmt::format("{}: {}", key.text, override_text(value)));
      return fmt::format("{{{}}}", fmt::join(parts, ", "));
    default:
      return {};
  }
}

// Reads a study and collects what is wrong on the way.
class StudyReader : private MapReader {
 public:
  StudyReader(std::string_view text, const std::string& path) {
    study_.path = path;
    study_.text = text;
  }

  StudyConfig read() {
    const YamlNode root = parse_yaml(study_.text, mistakes());
    if (root.kind == YamlNode::Kind::map)
      read_map(root, "",
               {{"study", [&](const YamlNode& node) { read_head(node); }},
                {"sets", [&](const YamlNode& node) { read_sets(node); }}},
               {"study", "sets"});
    else if (mistakes().empty())
      mistake(root.place, "expected the keys study and sets, as docs/studies.md shows");
    throw_mistakes(study_.path);
    return std::move(study_);
  }

 private:
  // Whether the name is a key that a point may set.
  bool is_key(const YamlNode& name, const std::string& path) {
    const std::string& key = name.text;
    if (key == "run.output" || key == "checkpoint.resume") {
      mistake(name.place, fmt::format("{}: {} is set by the sweep: leave it out", path, key));
      return false;
    }
    if (find_key(key) != nullptr || find_list_part(key)) return true;
    mistake(name.place,
            fmt::format("{}: {}: {}", path, for_message(key),
                        is_section(key) ? "is a section; write its keys with dots, as in "
                                          "experts.num_experts"
                                        : unknown_path(key)));
    return false;
  }

  Settings settings_of(const YamlNode& node, const std::string& path) {
    Settings settings;
    if (node.kind != YamlNode::Kind::map) {
      mistake(node.place, fmt::format("{}: expected keys of a configuration with values, got {}",
                                      path, node.kind_name()));
      return settings;
    }
    for (const auto& [key, value] : node.entries)
      if (is_key(key, path)) settings.emplace_back(key.text, override_text(value));
    return settings;
  }

  void read_head(const YamlNode& node) {
    StudyConfig& s = study_;
    read_map(
        node, "study",
        {{"name",
          [&](const YamlNode& value) {
            text_into(s.name, "study.name")(value);
            require_name(value, "study.name");
          }},
         {"output", path_into(s.output, "study.output")},
         {"config", path_into(s.config, "study.config")},
         {"ranks", whole_into(s.ranks, "study.ranks", 1, 1'000'000)},
         {"seeds", wholes_into(s.seeds, "study.seeds", 0, 4'000'000'000)},
         {"effect", [&](const YamlNode& value) { s.effect = number(value, "study.effect", 0); }},
         {"noise", [&](const YamlNode& value) { read_noise(value); }},
         {"evaluate", flag_into(s.evaluate, "study.evaluate")},
         {"slurm", [&](const YamlNode& value) { read_slurm(value); }}},
        {"name", "output", "config"});
  }

  void require_name(const YamlNode& node, const std::string& path) {
    const bool is_plain =
        !node.text.empty() && node.text.size() <= 64 &&
        std::all_of(node.text.begin(), node.text.end(), [](unsigned char letter) {
          return std::isalnum(letter) != 0 || letter == '_' || letter == '-' || letter == '.';
        });
    if (!is_plain || node.text.front() == '.' || node.text.front() == '-')
      mistake(
          node.place,
          fmt::format("{}: names of folders are made of it: use letters, digits, _, - and ., at "
                      "most 64, and begin with a letter or digit",
                      path));
  }

  // A number, or a file.
  void read_noise(const YamlNode& node) {
    if (number_of(node))
      study_.noise = number(node, "study.noise", 1e-12);
    else
      path_into(study_.noise_file, "study.noise")(node);
  }

  void read_slurm(const YamlNode& node) {
    SlurmConfig& slurm = study_.slurm;
    Readers readers = {
        {"ranks_per_node",
         whole_into(slurm.ranks_per_node, "study.slurm.ranks_per_node", 1, 100'000)},
        {"limit", whole_into(slurm.limit, "study.slurm.limit", 1, 100'000)},
        {"sbatch", [&](const YamlNode& value) {
           for_each_element(value, "study.slurm.sbatch", [&](const YamlNode& element) {
             slurm.options.insert(slurm.options.end(), {"--sbatch", element.text});
           });
         }}};
    for (const std::string name :
         {"cpus_per_rank", "gpus_per_node", "time", "partition", "account", "launcher"})
      readers[name] = [&slurm, name, this](const YamlNode& value) {
        std::string text;
        text_into(text, "study.slurm." + name)(value);
        std::string option = "--" + name;
        std::replace(option.begin(), option.end(), '_', '-');
        slurm.options.insert(slurm.options.end(), {option, text});
      };
    read_map(node, "study.slurm", readers);
  }

  void read_sets(const YamlNode& node) {
    std::set<std::string> names;
    for_each_element(node, "sets", [&](const YamlNode& element) {
      PointSetConfig& set = study_.sets.emplace_back();
      read_set(element, set);
      if (!set.name.empty() && !names.insert(set.name).second)
        mistake(element.place, fmt::format("sets.name: {} stands twice", set.name));
    });
  }

  void read_set(const YamlNode& node, PointSetConfig& set) {
    read_map(
        node, "sets",
        {{"name",
          [&](const YamlNode& value) {
            text_into(set.name, "sets.name")(value);
            require_name(value, "sets.name");
          }},
         {"set", [&](const YamlNode& value) { set.set = settings_of(value, "sets.set"); }},
         {"grid", [&](const YamlNode& value) { read_grid(value, set); }},
         {"list",
          [&](const YamlNode& value) {
            for_each_element(value, "sets.list", [&](const YamlNode& element) {
              set.list.push_back(settings_of(element, "sets.list"));
            });
          }},
         {"random", [&](const YamlNode& value) { read_random(value, set.random.emplace()); }},
         {"scaling",
          [&](const YamlNode& value) {
            ScalingForm& form = set.scaling.emplace();
            read_map(value, "sets.scaling",
                     {{"kind", choice_into(form.kind, "sets.scaling.kind")},
                      {"ranks", wholes_into(form.ranks, "sets.scaling.ranks", 1, 1'000'000)}},
                     {"kind", "ranks"});
          }},
         {"iso_flop", [&](const YamlNode& value) { read_iso_flop(value, set.iso_flop.emplace()); }},
         {"batch_size",
          [&](const YamlNode& value) { read_batch(value, set.batch_size.emplace()); }},
         {"learning_rate",
          [&](const YamlNode& value) { read_rate(value, set.learning_rate.emplace()); }},
         {"branches",
          [&](const YamlNode& value) {
            Branches& branches = set.branches.emplace();
            read_map(value, "sets.branches",
                     {{"at", wholes_into(branches.at, "sets.branches.at", 1, 1'000'000'000)},
                      {"decay", number_into(branches.decay, "sets.branches.decay", 1e-3)}},
                     {"at"});
            std::sort(branches.at.begin(), branches.at.end());
          }}},
        {"name"});
    const bool is_weak = set.scaling && set.scaling->kind == ScalingKind::weak;
    if (set.batch_size && (set.branches || is_weak))
      mistake(node.place,
              fmt::format("sets.batch_size: {} already {}; leave one of them out",
                          set.branches ? "branches" : "weak scaling",
                          set.branches ? "give the numbers of steps" : "gives the batch"));
  }

  void read_batch(const YamlNode& node, BatchSize& rule) {
    const std::string path = "sets.batch_size";
    read_map(node, path,
             {{"rule", choice_into(rule.rule, path + ".rule")},
              {"batch", number_into(rule.batch, path + ".batch", 1)},
              {"tokens", number_into(rule.tokens, path + ".tokens", 1)},
              {"exponent", number_into(rule.exponent, path + ".exponent", -INFINITY)}},
             {"rule"});
    const bool has_all = rule.batch > 0 && rule.tokens > 0;
    if ((rule.rule == BatchRule::power) != has_all && (has_all || rule.rule == BatchRule::power))
      mistake(node.place, fmt::format("{}: batch, tokens and exponent belong to the rule power, "
                                      "which needs batch and tokens",
                                      path));
  }

  void read_grid(const YamlNode& node, PointSetConfig& set) {
    if (node.kind != YamlNode::Kind::map)
      return mistake(node.place, "sets.grid: expected keys of a configuration, each with a list");
    for (const auto& [key, value] : node.entries) {
      if (!is_key(key, "sets.grid")) continue;
      std::vector<std::string>& values =
          set.grid.emplace_back(key.text, std::vector<std::string>()).second;
      for_each_element(value, "sets.grid." + key.text, [&values](const YamlNode& element) {
        values.push_back(override_text(element));
      });
    }
  }

  void read_random(const YamlNode& node, RandomDraws& random) {
    read_map(
        node, "sets.random",
        {{"num_points", whole_into(random.num_points, "sets.random.num_points", 1, most_points)},
         {"seed", whole_into(random.seed, "sets.random.seed", 0, 4'000'000'000)},
         {"draws",
          [&](const YamlNode& draws) {
            if (draws.kind != YamlNode::Kind::map)
              return mistake(draws.place, "sets.random.draws: expected keys of a configuration");
            for (const auto& [key, value] : draws.entries)
              if (is_key(key, "sets.random.draws")) read_draw(key.text, value, random);
          }}},
        {"num_points", "draws"});
  }

  void read_draw(const std::string& key, const YamlNode& node, RandomDraws& random) {
    RandomDraw& draw = random.draws.emplace_back();
    draw.key = key;
    const std::string path = "sets.random.draws." + key;
    if (node.kind == YamlNode::Kind::list)
      return for_each_element(node, path, [&draw](const YamlNode& element) {
        draw.choices.push_back(override_text(element));
      });
    bool is_whole = true;
    const auto bound = [&](double& target) {
      return [&, this](const YamlNode& value) {
        is_whole = is_whole && value.text.find_first_of(".eE") == std::string::npos;
        if (const auto found = number(value, path, -INFINITY)) target = *found;
      };
    };
    const std::size_t num_before = mistakes().size();
    read_map(
        node, path,
        {{"from", bound(draw.from)}, {"to", bound(draw.to)}, {"log", flag_into(draw.is_log, path)}},
        {"from", "to"});
    draw.is_whole = is_whole;
    if (mistakes().size() == num_before &&
        (draw.from >= draw.to || (draw.is_log && draw.from <= 0)))
      mistake(node.place, fmt::format("{}: `from` must be below `to`{}", path,
                                      draw.is_log ? ", and above 0" : ""));
  }

  void read_iso_flop(const YamlNode& node, IsoFlop& family) {
    read_map(node, "sets.iso_flop",
             {{"budgets",
               [&](const YamlNode& value) {
                 for_each_element(value, "sets.iso_flop.budgets", [&](const YamlNode& element) {
                   if (const auto budget = number(element, "sets.iso_flop.budgets", 1))
                     family.budgets.push_back(*budget);
                 });
               }},
              {"sizes",
               [&](const YamlNode& value) {
                 for_each_element(value, "sets.iso_flop.sizes", [&](const YamlNode& element) {
                   family.sizes.push_back(settings_of(element, "sets.iso_flop.sizes"));
                 });
               }}},
             {"budgets", "sizes"});
  }

  void read_rate(const YamlNode& node, LearningRate& rule) {
    const std::string path = "sets.learning_rate";
    read_map(node, path,
             {{"rule", choice_into(rule.rule, path + ".rule")},
              {"rate", number_into(rule.rate, path + ".rate", 1e-300)},
              {"size", number_into(rule.size, path + ".size", 1)},
              {"exponent", number_into(rule.exponent, path + ".exponent", -INFINITY)}},
             {"rule"});
    const bool has_all = rule.rate > 0 && rule.size > 0;
    if ((rule.rule == RateRule::power) != has_all && (has_all || rule.rule == RateRule::power))
      mistake(node.place, fmt::format("{}: rate, size and exponent belong to the rule power, which "
                                      "needs rate and size",
                                      path));
  }

  StudyConfig study_;
};

}  // namespace

StudyConfig load_study(std::string_view text, const std::string& path) {
  return StudyReader(text, path).read();
}

StudyConfig read_study(const std::string& path) {
  return load_study(read_config_text(path), path);
}

}  // namespace switchyard
