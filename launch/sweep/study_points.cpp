#include "launch/sweep/study_points.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "data/files/checksum.hpp"
#include "kernels/threads.hpp"
#include "launch/config/value.hpp"
#include "launch/pricing/find_profile.hpp"
#include "launch/sweep/draft_points.hpp"
#include "parallel/cores.hpp"
#include "tensor/error.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/plan.hpp"
#include "trainer/pricing/step_prediction.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t most_points = 100'000;
constexpr double most_steps = 1e12;

// Each key with the value that counts: its last.
std::string text_of(const Settings& settings) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    const bool is_last =
        std::none_of(settings.begin() + static_cast<std::ptrdiff_t>(i) + 1, settings.end(),
                     [&](const auto& later) { return later.first == settings[i].first; });
    if (is_last) parts.push_back(settings[i].first + "=" + settings[i].second);
  }
  return fmt::format("{}", fmt::join(parts, " "));
}

std::string hash_of(std::string_view text) {
  return checksum_text(checksum_of(std::as_bytes(std::span(text))));
}

// Whether a key decides nothing of what a run computes: what it saves and tells on the way.
bool is_watching(const Key& key) {
  constexpr std::string_view sections[] = {"watchdog", "capture", "profile", "metrics", "plan"};
  constexpr std::string_view keys[] = {"every", "keep", "initial", "resume"};  // of checkpoint
  return std::count(std::begin(sections), std::end(sections), key.section) > 0 ||
         (key.section == "checkpoint" &&
          std::count(std::begin(keys), std::end(keys), key.name) > 0);
}

// The keys that are not as they are by default, but for those that decide nothing of what a run
// computes: a version with more keys gives the same text.
std::string identity_text(const Config& config, bool with_seed) {
  const Config defaults;
  std::string text;
  for (const Key& key : schema()) {
    const std::string path = key.path();
    const bool is_apart =
        path == "run.output" || (path == "run.seed" && !with_seed) || is_watching(key);
    if (is_apart) continue;
    if (!same_value(config, defaults, key) || path == "run.seed")
      text += fmt::format("{}={}\n", path, format_value(config, key));
  }
  return text;
}

// Seconds of a step on the machine of a profile, whose ranks share a host as far as this one has
// cores. Where it does not reach, why.
double seconds_of(const Plan& plan, const Config& config, const MachineProfile& profile,
                  std::string& why_not) {
  try {
    const RanksOfHost ranks{.ranks_per_host = std::min<std::int64_t>(
                                plan.num_ranks, Cores::of_this_process().num_cores),
                            .threads = kernels::num_threads()};
    const MachineSetting& setting = setting_for(profile, plan.num_ranks, ranks, false);
    return predict_step(plan, compute_dtype(config.run), profile, setting).seconds;
  } catch (const ConfigError& error) {
    why_not = error.what();
    return 0;
  }
}

PointPlan plan_of(const Config& given, std::int64_t ranks, std::int64_t vocab_size,
                  const FoundProfile& machine, std::string& why_no_seconds) {
  Config config = given;
  config.model.vocab_size = vocab_size;
  set_planned_threads(config.run, static_cast<int>(ranks));
  const bool has_seconds = machine.profile && (machine.profile->device == DeviceKind::cuda) ==
                                                  (config.run.device == RunDevice::cuda);
  const Plan plan = make_plan(config, static_cast<int>(ranks), vocab_size, 0,
                              has_seconds ? StepRecords::alike_once : StepRecords::none);
  PointPlan result;
  result.num_parameters = plan.num_parameters;
  result.num_active_parameters = plan.num_active_parameters;
  result.num_embedding_parameters =
      vocab_size * config.model.hidden * (config.model.tie_embeddings ? 1 : 2);
  result.tokens_per_step = plan.tokens_per_step;
  const auto tokens = static_cast<double>(plan.tokens_per_step);
  result.flops_per_token = plan.step_flops() / tokens;
  const double scale = plan.num_ranks / static_cast<double>(plan.ranks.size()) / tokens;
  for (const RankPlan& rank : plan.ranks)
    for (std::size_t part = 0; part < num_parts; ++part)
      result.part_flops[part] += rank.step[part].flops * scale;
  result.memory_bytes = plan.fullest().peak_bytes;
  result.wire_bytes = plan.step_wire_bytes();
  result.parallel = plan.parallel;
  if (has_seconds)
    result.step_seconds = seconds_of(plan, config, *machine.profile, why_no_seconds);
  else if (why_no_seconds.empty())
    why_no_seconds =
        machine.profile ? machine.profile->path + " is of another device" : machine.why_not;
  return result;
}

// Makes the points of a study one after another.
class PointMaker {
 public:
  PointMaker(Study& study, const VocabularyOf& vocabulary_of)
      : study_(study), vocabulary_of_(vocabulary_of) {}

  void add(const DraftPoint& draft) {
    std::vector<std::int64_t> seeds = study_.file.seeds;
    const bool has_seeds = !seeds.empty();
    if (!has_seeds) seeds.push_back(0);
    for (std::size_t repeat = 0; repeat < seeds.size(); ++repeat) {
      Settings settings = draft.settings;
      if (has_seeds) settings.emplace_back("run.seed", std::to_string(seeds[repeat]));
      try {
        add_repeat(draft, settings, static_cast<std::int64_t>(repeat));
      } catch (const ConfigError& error) {
        throw ConfigError(
            fmt::format("set {}, point {}, {} ranks:\n{}", draft.set->name,
                        settings.empty() ? "(as the configuration)" : text_of(settings),
                        draft.ranks, error.what()));
      }
    }
  }

 private:
  LoadedConfig load(const Settings& settings, std::int64_t ranks) const {
    std::vector<std::string> overrides;
    for (const auto& [key, value] : settings) overrides.push_back(key + "=" + value);
    overrides.push_back("run.output=" + study_.file.output);
    LoadedConfig loaded = load_config(study_.config_text, study_.file.config, overrides);
    require_valid_for_ranks(loaded, ranks);
    return loaded;
  }

  // Plans do not depend on seeds, rates and the number of steps.
  const PointPlan& plan(const LoadedConfig& loaded, std::int64_t ranks) {
    const std::int64_t known = vocabulary(loaded);
    const std::int64_t asked = loaded.config.model.vocab_size;
    Config config = loaded.config;
    config.optimizer = {};
    config.train.num_steps = 1;
    config.evaluate = {};
    config.checkpoint = {};
    const std::string key = fmt::format("{}\n{}", ranks, identity_text(config, false));
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    return plans_
        .emplace(key, plan_of(loaded.config, ranks, asked > 0 ? asked : known,
                              machine(loaded.config.plan.profile), study_.why_no_seconds))
        .first->second;
  }

  const FoundProfile& machine(const std::string& wanted) {
    const auto found = machines_.find(wanted);
    if (found != machines_.end()) return found->second;
    return machines_.emplace(wanted, find_profile(wanted)).first->second;
  }

  std::int64_t vocabulary(const LoadedConfig& loaded) {
    const std::string& path = loaded.config.data.path;
    const auto found = vocabularies_.find(path);
    const std::int64_t size =
        found != vocabularies_.end()
            ? found->second
            : vocabularies_.emplace(path, vocabulary_of_(loaded)).first->second;
    require_valid_for_vocabulary(loaded, size);
    return size;
  }

  // The steps that meet the budget.
  static std::int64_t steps_for(double budget, const PointPlan& plan) {
    const double of_step = plan.flops_per_token * static_cast<double>(plan.tokens_per_step);
    const double steps = std::round(budget / of_step);
    if (steps < 1 || steps > most_steps)
      throw ConfigError(fmt::format(
          "iso_flop: a step takes {:.3g} FLOPs, so the budget {:.3g} is {:.3g} steps; choose a "
          "budget of at least a step",
          of_step, budget, budget / of_step));
    return static_cast<std::int64_t>(steps);
  }

  void add_repeat(const DraftPoint& draft, Settings settings, std::int64_t repeat) {
    if (draft.batch_factor > 1) {
      const std::int64_t batch = load(settings, 1).config.train.global_batch;
      settings.emplace_back("train.global_batch", std::to_string(batch * draft.batch_factor));
    }
    if (draft.set->branches) {
      const std::vector<std::int64_t>& at = draft.set->branches->at;
      settings.emplace_back("optimizer.schedule", "constant_decay");
      settings.emplace_back("optimizer.decay_steps", "0");
      settings.emplace_back("train.num_steps", std::to_string(at.back()));
    }
    LoadedConfig loaded = load(settings, draft.ranks);
    PointPlan planned = plan(loaded, draft.ranks);
    if (draft.set->batch_size) {
      add_batch(draft, loaded.config, planned, settings);
      loaded = load(settings, draft.ranks);
      planned = plan(loaded, draft.ranks);
    }
    if (draft.budget > 0) {
      settings.emplace_back("train.num_steps", std::to_string(steps_for(draft.budget, planned)));
      loaded = load(settings, draft.ranks);
    }
    if (draft.set->learning_rate) {
      const ExpertsConfig& experts = loaded.config.experts;
      const bool is_dense = !has_experts(loaded.config);
      const double rate = learning_rate_by(
          *draft.set->learning_rate,
          static_cast<double>(planned.num_active_parameters - planned.num_embedding_parameters),
          static_cast<double>(planned.tokens_per_step * loaded.config.train.num_steps),
          is_dense ? 1.0 : static_cast<double>(experts.num_experts));
      settings.emplace_back("optimizer.learning_rate", fmt::format("{:.4g}", rate));
    }
    if (draft.set->branches)
      add_trunk(draft, settings, planned, repeat);
    else
      add_point(draft, settings, planned, repeat, {});
  }

  // The batch by the rule, in whole micro-batches of every rank, and as many steps as leave the
  // run's tokens as they are. A budget sets the steps afterwards.
  static void add_batch(const DraftPoint& draft, const Config& config, const PointPlan& planned,
                        Settings& settings) {
    const double tokens = draft.budget > 0 ? draft.budget / planned.flops_per_token
                                           : static_cast<double>(planned.tokens_per_step) *
                                                 static_cast<double>(config.train.num_steps);
    const auto length = static_cast<double>(config.model.sequence_length);
    const std::int64_t least = draft.ranks * std::max<std::int64_t>(1, config.train.micro_batch);
    const double wanted = batch_tokens_by(*draft.set->batch_size, tokens) / length;
    const std::int64_t batch =
        least * std::max<std::int64_t>(1, std::llround(wanted / static_cast<double>(least)));
    settings.emplace_back("train.global_batch", std::to_string(batch));
    if (draft.budget > 0) return;
    const double steps = tokens / (static_cast<double>(batch) * length);
    settings.emplace_back("train.num_steps",
                          std::to_string(std::max<std::int64_t>(1, std::llround(steps))));
  }

  static bool has_experts(const Config& config) {
    for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer)
      if (config.experts.layer_has_experts(layer)) return true;
    return false;
  }

  // The trunk keeps the state of every step that a branch leaves it at.
  void add_trunk(const DraftPoint& draft, const Settings& settings, const PointPlan& planned,
                 std::int64_t repeat) {
    const Branches& branches = *draft.set->branches;
    std::int64_t every = 0;
    for (const std::int64_t step : branches.at) every = std::gcd(every, step);
    Settings trunk = settings;
    trunk.emplace_back("checkpoint.every", std::to_string(every));
    // A restart saves at other steps, too; none of these may push one out.
    trunk.emplace_back("checkpoint.keep", std::to_string(branches.at.back() / every + 1000));
    const std::string name = add_point(draft, trunk, planned, repeat, {.saved_every = every});
    for (const std::int64_t step : branches.at) {
      const auto decay =
          std::max<std::int64_t>(1, std::llround(branches.decay * static_cast<double>(step)));
      Settings branch = settings;
      branch.emplace_back("optimizer.decay_steps", std::to_string(decay));
      branch.emplace_back("train.num_steps", std::to_string(step + decay));
      add_point(draft, branch, planned, repeat, {.parent = name, .step = step});
    }
  }

  // Of a trunk, saved_every; of a branch, the others.
  struct Lineage {
    std::string parent = {};
    std::int64_t step = 0;
    std::int64_t saved_every = 0;
  };

  // Returns its name.
  std::string add_point(const DraftPoint& draft, Settings settings, const PointPlan& planned,
                        std::int64_t repeat, const Lineage& lineage) {
    LoadedConfig loaded = load(settings, draft.ranks);
    const std::int64_t num_steps = loaded.config.train.num_steps;
    const std::int64_t every = loaded.config.evaluate.every;
    if (study_.file.evaluate && (every == 0 || num_steps % every != 0)) {
      settings.emplace_back("evaluate.every", std::to_string(num_steps));
      loaded = load(settings, draft.ranks);
    }
    StudyPoint point;
    point.set = draft.set->name;
    point.settings_text = text_of(settings);
    point.ranks = draft.ranks;
    point.repeat = repeat;
    point.parent = lineage.parent;
    point.parent_step = lineage.step;
    point.plan = planned;
    point.config = std::move(loaded.config);
    const std::string apart = fmt::format("{} ranks, from step {}, saved every {}\n", draft.ranks,
                                          lineage.step, lineage.saved_every);
    point.config_hash = hash_of(apart + lineage.parent + "\n" + identity_text(point.config, true));
    // A branch's trunk has the seed in its name.
    point.configuration = hash_of(apart + identity_text(point.config, false));
    point.name = fmt::format("{}-{}", point.set, point.config_hash.substr(0, 8));
    point.config.run.output = study_.folder_of(point);
    if (!lineage.parent.empty())
      point.config.checkpoint.resume =
          fmt::format("{}/points/{}/checkpoints/{}", study_.file.output, lineage.parent,
                      step_folder_name(lineage.step));
    return keep(std::move(point), loaded.warnings);
  }

  std::string keep(StudyPoint point, const std::vector<std::string>& warnings) {
    const auto same = hashes_.find(point.config_hash);
    if (same != hashes_.end()) {
      study_.notes.push_back(fmt::format("{} of set {} is the point {} again; it runs once",
                                         point.settings_text, point.set, same->second));
      return same->second;
    }
    if (!names_.insert(point.name).second)
      throw ConfigError(
          fmt::format("two points have the name {}; rename the set {}", point.name, point.set));
    if (study_.points.size() >= most_points)
      throw ConfigError(fmt::format("the study has more than {} points", most_points));
    for (const std::string& warning : warnings)
      if (warned_.insert(warning).second) study_.notes.push_back(warning);
    hashes_.emplace(point.config_hash, point.name);
    study_.points.push_back(std::move(point));
    return study_.points.back().name;
  }

  Study& study_;
  const VocabularyOf& vocabulary_of_;
  std::map<std::string, PointPlan> plans_;
  std::map<std::string, FoundProfile> machines_;  // by plan.profile
  std::map<std::string, std::int64_t> vocabularies_;
  std::map<std::string, std::string> hashes_;  // -> name
  std::set<std::string> names_, warned_;
};

}  // namespace

double batch_tokens_by(const BatchSize& rule, double num_tokens) {
  if (rule.rule == BatchRule::step_law) return 0.58 * std::pow(num_tokens, 0.571);
  return rule.batch * std::pow(num_tokens / rule.tokens, rule.exponent);
}

double learning_rate_by(const LearningRate& rule, double size, double num_tokens,
                        double num_experts) {
  switch (rule.rule) {
    case RateRule::step_law:
      return 1.79 * std::pow(size, -0.713) * std::pow(num_tokens, 0.307);
    case RateRule::joint_moe:
      return std::exp(8.39 - 0.81 * std::log(size) - 0.25 * std::log(num_experts));
    case RateRule::power:
      break;
  }
  return rule.rate * std::pow(size / rule.size, rule.exponent);
}

Study make_study(StudyConfig file, const VocabularyOf& vocabulary_of) {
  Study study;
  study.file = std::move(file);
  try {
    study.config_text = read_config_text(study.file.config);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: study.config: {}", study.file.path, error.what()));
  }
  PointMaker maker(study, vocabulary_of);
  for (const DraftPoint& draft : draft_points(study.file)) maker.add(draft);
  return study;
}

}  // namespace switchyard
