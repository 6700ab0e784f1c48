// The points of a study, each a complete configuration with a name, planned by the trainer's own
// code (trainer/plan.hpp). Nothing is written and nothing runs.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/config/config_file.hpp"
#include "launch/sweep/study_config.hpp"
#include "tensor/profile.hpp"

namespace switchyard {

// What a point needs. Seconds are not among it: no profile of a machine exists yet.
struct PointPlan {
  std::int64_t num_parameters = 0;
  std::int64_t num_active_parameters = 0;
  std::int64_t num_embedding_parameters = 0;  // of embedding and head, among both
  std::int64_t tokens_per_step = 0;
  double flops_per_token = 0;                  // forward and backward
  std::array<double, num_parts> part_flops{};  // of it
  std::int64_t memory_bytes = 0;               // of the fullest rank, balanced
  double wire_bytes = 0;                       // sent in a step by all ranks
  double step_seconds = 0;  // foretold by plan.profile; 0: none, or it does not reach so far
  ParallelConfig parallel;  // resolved
};

struct StudyPoint {
  std::string name;  // set and hash: "moe-3f2a9c41"
  std::string set;
  std::string settings_text;  // what it changes, for messages: "experts.num_experts=8 ..."
  std::string configuration;  // hash that all seeds share
  std::string config_hash;    // of all that decides what the point computes
  std::int64_t repeat = 0;    // which of the seeds
  std::int64_t ranks = 1;
  Config config;       // with run.output in the study's folder
  std::string parent;  // the trunk of a branch; empty: none
  std::int64_t parent_step = 0;
  PointPlan plan;

  std::int64_t num_steps() const { return config.train.num_steps; }
  double num_tokens() const {  // the trunk's share included
    return static_cast<double>(plan.tokens_per_step) * static_cast<double>(num_steps());
  }
  double flops() const { return plan.flops_per_token * num_tokens(); }
  // Of the steps that it takes itself.
  double own_flops() const {
    return flops() * static_cast<double>(num_steps() - parent_step) /
           static_cast<double>(num_steps());
  }
  double own_seconds() const {
    return plan.step_seconds * static_cast<double>(num_steps() - parent_step);
  }
};

struct Study {
  StudyConfig file;
  std::string config_text;         // of the configuration that points change
  std::vector<StudyPoint> points;  // a trunk before its branches
  std::string why_no_seconds;      // of the first point without
  std::vector<std::string> notes;  // points that stand twice in the file, warnings

  std::string folder_of(const StudyPoint& point) const {
    return file.output + "/points/" + point.name;
  }
};

// The tokens that the tokenizer of a configuration's data knows; throws if there are no data.
using VocabularyOf = std::function<std::int64_t(const LoadedConfig&)>;

// ConfigError with the point's settings for what its configuration or layout refuses.
Study make_study(StudyConfig file, const VocabularyOf& vocabulary_of);

// Tokens of a step by a rule (docs/scaling_laws.md), of a run of so many tokens.
double batch_tokens_by(const BatchSize& rule, double num_tokens);

// optimizer.learning_rate by a rule (docs/scaling_laws.md). size: active parameters without
// embedding and head.
double learning_rate_by(const LearningRate& rule, double size, double num_tokens,
                        double num_experts);

}  // namespace switchyard
