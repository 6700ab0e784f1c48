// The file of a study (docs/studies.md): which configurations its points have. All mistakes come in
// one ConfigError, a line each with file, line and column.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/config/yaml_tree.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

// Keys of a configuration with values as overrides of a command line write them.
using Settings = std::vector<std::pair<std::string, std::string>>;

struct RandomDraw {
  std::string key;
  std::vector<std::string> choices;  // empty: a number of the range
  double from = 0;
  double to = 0;
  bool is_log = false;
  bool is_whole = false;
};

struct RandomDraws {
  std::int64_t num_points = 0;
  std::int64_t seed = 1;
  std::vector<RandomDraw> draws;
};

enum class ScalingKind : std::uint8_t { strong, weak };
constexpr std::array<std::string_view, 2> choice_names(ScalingKind) {
  return {"strong", "weak"};
}
struct ScalingForm {
  ScalingKind kind = ScalingKind::strong;
  std::vector<std::int64_t> ranks;
};

struct IsoFlop {
  std::vector<double> budgets;  // FLOPs of a run
  std::vector<Settings> sizes;
};

enum class RateRule : std::uint8_t { step_law, joint_moe, power };
constexpr std::array<std::string_view, 3> choice_names(RateRule) {
  return {"step_law", "joint_moe", "power"};
}
struct LearningRate {
  RateRule rule = RateRule::step_law;
  double rate = 0;  // of power: at `size` parameters
  double size = 0;
  double exponent = 0;
};

enum class BatchRule : std::uint8_t { step_law, power };
constexpr std::array<std::string_view, 2> choice_names(BatchRule) {
  return {"step_law", "power"};
}
// Tokens of a step.
struct BatchSize {
  BatchRule rule = BatchRule::step_law;
  double batch = 0;  // of power: at `tokens` tokens of a run
  double tokens = 0;
  double exponent = 0;
};

struct Branches {
  std::vector<std::int64_t> at;  // steps of the trunk, rising
  double decay = 0.2;            // further steps over the trunk's
};

struct PointSetConfig {
  std::string name;
  Settings set;
  std::vector<std::pair<std::string, std::vector<std::string>>> grid;
  std::vector<Settings> list;
  std::optional<RandomDraws> random;
  std::optional<ScalingForm> scaling;
  std::optional<IsoFlop> iso_flop;
  std::optional<BatchSize> batch_size;
  std::optional<LearningRate> learning_rate;
  std::optional<Branches> branches;
};

struct SlurmConfig {
  std::int64_t ranks_per_node = 0;   // 0: all ranks on one node
  std::int64_t limit = 0;            // jobs of an array at once; 0: none
  std::vector<std::string> options;  // of launch/submit, in words
};

struct StudyConfig {
  std::string path;  // of the file
  std::string text;
  std::string name;
  std::string output;
  std::string config;
  std::int64_t ranks = 1;
  std::vector<std::int64_t> seeds;  // empty: that of the configuration
  std::optional<double> effect;
  std::optional<double> noise;
  std::string noise_file;  // an earlier study's
  bool evaluate = true;
  SlurmConfig slurm;
  std::vector<PointSetConfig> sets;
};

StudyConfig load_study(std::string_view text, const std::string& path);
StudyConfig read_study(const std::string& path);

}  // namespace switchyard
