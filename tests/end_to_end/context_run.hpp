// Runs whose sequences are split over ranks, beside the same run on one rank, which each process
// computes for itself: the layouts and models that are compared, and the comparison.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {

inline constexpr double tolerance = 1e-5;  // relative, fp32

enum class Model {
  full,
  windows_and_sinks,
  documents,
  running_positions,
  alibi,
  relative,
  globals,
  globals_of_documents,
  xl,
  xl_of_documents
};

struct ContextCase {
  std::int64_t ranks = 1;
  std::int64_t ulysses = 1;
  std::int64_t expert = 1;
  ContextMethod method = ContextMethod::ring;
  SequenceLayout layout = SequenceLayout::zigzag;
  std::int64_t length = 16;
  Model model = Model::full;
  RouterConfig router = {};
  std::vector<MixerConfig> mixers = {};  // instead of the model's

  std::string describe() const {
    return "context " + std::to_string(ranks) + ", ulysses " + std::to_string(ulysses) +
           ", expert " + std::to_string(expert) + ", " + std::string(name_of(method)) + ", " +
           std::string(name_of(layout)) + ", length " + std::to_string(length) + ", model " +
           std::to_string(static_cast<int>(model)) + ", router " +
           std::string(name_of(router.kind)) + ", mixers from " +
           (mixers.empty() ? "full" : std::string(name_of(mixers.front().kind)));
  }
};

inline Config config_of(const ContextCase& c) {
  Config config = small_config(c.expert);
  config.model.sequence_length = c.length;
  config.train.global_batch = 4 * (world().size() / c.ranks);
  config.train.micro_batch = 2;
  config.experts.router = c.router;
  config.parallel.context = c.ranks;
  config.parallel.context_split.ring = c.ranks / c.ulysses;
  config.parallel.context_split.ulysses = c.ulysses;
  config.parallel.context_split.method = c.method;
  config.parallel.context_split.layout = c.layout;
  config.parallel.context_split.pad = c.length % (2 * c.ranks) != 0;
  if (c.model == Model::windows_and_sinks)
    config.model.mixer = {{.kind = MixerKind::window, .window = 5, .sinks = 1},
                          {.kind = MixerKind::full, .window = 0, .sinks = 2}};
  if (c.model == Model::documents || c.model == Model::running_positions) {
    config.data.document_mask = true;
    config.data.restart_positions = c.model == Model::documents;
    // A document of one token sees itself alone, and with small embeddings its residual stream may
    // come near zero: the norm's gradient would then show rounding enlarged.
    config.model.embedding_std = 0.5;
  }
  if (c.model == Model::alibi) {
    config.model.position.kind = PositionKind::alibi;
    config.model.mixer = {{.kind = MixerKind::window, .window = 5}, {}};
  }
  if (c.model == Model::globals || c.model == Model::globals_of_documents) {
    config.model.mixer = {{.kind = MixerKind::window, .window = 4, .globals = 3, .sinks = 1},
                          {.kind = MixerKind::window, .window = 2, .globals = 1}};
    config.data.document_mask = c.model == Model::globals_of_documents;
    config.model.embedding_std = 0.5;
  }
  if (c.model == Model::relative) {
    config.model.position = {.kind = PositionKind::relative, .buckets = 6, .max_distance = 11};
    config.model.mixer = {{.kind = MixerKind::window, .window = 5}, {}};
  }
  if (c.model == Model::xl || c.model == Model::xl_of_documents) {
    config.model.position.kind = PositionKind::xl;
    config.model.mixer = {{}, {.kind = MixerKind::segment, .length = 5, .memory = 4}};
    config.data.document_mask = c.model == Model::xl_of_documents;
    config.model.embedding_std = 0.5;
  }
  if (!c.mixers.empty()) {
    config.model.mixer = c.mixers;
    if (config.model.has_classes()) config.model.num_kv_heads = config.model.num_heads;
    // The norm of a head's outputs would enlarge the rounding of small ones.
    config.model.embedding_std = 0.5;
  }
  return config;
}

// The same sequences on one rank.
inline Config whole(Config config) {
  config.parallel = {};
  return config;
}

// Documents begin at positions that depend on the sequence alone.
class DocumentSource final : public BatchSource {
 public:
  DocumentSource(const BatchLayout& layout, std::int64_t num_steps)
      : layout_(layout), tokens_(layout) {
    tokens_.seek(num_steps);
  }
  Batch next() override {
    Batch batch = tokens_.next();
    if (!layout_.with_documents) return batch;
    for (std::size_t row = 0; row < batch.sequence_ids.size(); ++row) {
      batch.document_starts[row].clear();
      const std::int64_t id = batch.sequence_ids[row];
      for (std::int64_t p = 1 + id % 5; p < layout_.sequence_length; p += 1 + (id + p) % 6)
        batch.document_starts[row].push_back(static_cast<std::int32_t>(p));
    }
    return batch;
  }

 private:
  BatchLayout layout_;
  SkewedSource tokens_;
};

inline std::vector<StepResult> train(SmallRun& run, std::int64_t first, std::int64_t last) {
  DocumentSource source(run.trainer.batch_layout(), first - 1);
  std::vector<StepResult> results;
  for (std::int64_t step = first; step <= last; ++step)
    results.push_back(run.trainer.step(step, source));
  return results;
}

inline void expect_equal(double actual, double expected, const std::string& what) {
  EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected))
      << what << ": " << actual << " against " << expected;
}

// The first step's gradients, then losses and norms of all.
inline void expect_as_one_rank(const ContextCase& c, std::int64_t num_steps) {
  SCOPED_TRACE(c.describe());
  const std::unique_ptr<Group> alone = make_local_group("alone");
  SmallRun reference(*alone, whole(config_of(c)));
  SmallRun run(world(), config_of(c));
  for (std::int64_t step = 1; step <= num_steps; ++step) {
    const StepResult actual = train(run, step, step).front();
    const StepResult expected = train(reference, step, step).front();
    const std::string at = " of step " + std::to_string(step);
    expect_equal(actual.loss, expected.loss, "loss" + at);
    expect_equal(actual.gradient_norm, expected.gradient_norm, "gradient norm" + at);
    expect_equal(actual.losses.cross_entropy, expected.losses.cross_entropy, "cross-entropy" + at);
    expect_equal(actual.losses.balance, expected.losses.balance, "balance loss" + at);
    expect_equal(actual.losses.z, expected.losses.z, "z-loss" + at);
    EXPECT_DOUBLE_EQ(actual.load.max_over_mean, expected.load.max_over_mean) << at;
    if (step > 1) continue;
    for (const Parameter& parameter : reference.trainer.store().parameters())
      EXPECT_LT(gradient_error(parameter, run, world()), tolerance) << parameter.name();
  }
}

}  // namespace switchyard::test
