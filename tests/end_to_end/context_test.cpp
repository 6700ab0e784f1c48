// Sequences split over ranks change neither losses nor gradients: layouts of data x context (ring,
// Ulysses, both, gather, padded) and experts over the same ranks, with documents, windows and
// sinks, against one rank, which each process computes for itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/data/scratch_folder.hpp"
#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

constexpr double tolerance = 1e-5;  // relative, fp32

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

Config config_of(const ContextCase& c) {
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
    // The norm of a head's outputs would enlarge the rounding of small ones.
    config.model.embedding_std = 0.5;
  }
  return config;
}

// The same sequences on one rank.
Config whole(Config config) {
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

std::vector<StepResult> train(SmallRun& run, std::int64_t first, std::int64_t last) {
  DocumentSource source(run.trainer.batch_layout(), first - 1);
  std::vector<StepResult> results;
  for (std::int64_t step = first; step <= last; ++step)
    results.push_back(run.trainer.step(step, source));
  return results;
}

void expect_equal(double actual, double expected, const std::string& what) {
  EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected))
      << what << ": " << actual << " against " << expected;
}

// The first step's gradients, then losses and norms of all.
void expect_as_one_rank(const ContextCase& c, std::int64_t num_steps) {
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

TEST(Context, TwentyStepsOfEveryFoldingEqualOneRank) {
  for (const std::int64_t context : divisors(world().size()))
    for (const std::int64_t expert : {std::int64_t{1}, std::int64_t{world().size()}})
      expect_as_one_rank({.ranks = context, .expert = expert, .length = 4 * context}, 20);
}

// Every kind of router: those that look at whole sequences gather what they need.
TEST(Context, EveryRouterEqualsOneRank) {
  const std::int64_t ranks = world().size();
  for (const RouterConfig& router :
       {RouterConfig{.score = RouterScore::sigmoid, .scale = 2.5, .jitter = 0.1},
        RouterConfig{.kind = RouterKind::noisy_top_k}, RouterConfig{.kind = RouterKind::gshard},
        RouterConfig{.kind = RouterKind::sinkhorn, .score = RouterScore::sigmoid},
        RouterConfig{.kind = RouterKind::base}, RouterConfig{.kind = RouterKind::expert_choice},
        RouterConfig{.kind = RouterKind::hash}, RouterConfig{.kind = RouterKind::balanced},
        RouterConfig{.kind = RouterKind::imbalanced}}) {
    if (is_tested_on_card() && !router.runs_on_card()) continue;
    expect_as_one_rank({.ranks = ranks, .expert = ranks, .length = 4 * ranks, .router = router}, 3);
    expect_as_one_rank({.expert = ranks, .router = router}, 2);
    if (ranks > 1)
      expect_as_one_rank({.ranks = ranks, .length = 4 * ranks + 3, .router = router}, 2);
  }
}

// Twenty steps of the other schemes: exchanges of heads, keys that are gathered, halos, documents.
TEST(Context, TwentyStepsOfOtherSchemesEqualOneRank) {
  const std::int64_t ranks = world().size();
  const std::int64_t ulysses = ranks % 2 == 0 ? 2 : 1;
  expect_as_one_rank({.ranks = ranks,
                      .ulysses = ulysses,
                      .expert = ranks,
                      .length = 4 * ranks,
                      .model = Model::windows_and_sinks},
                     20);
  expect_as_one_rank({.ranks = ranks,
                      .ulysses = ulysses,
                      .expert = ranks,
                      .method = ContextMethod::all_gather,
                      .length = 4 * ranks + 1,
                      .model = Model::documents},
                     20);
}

// Attention behind a convolution, and each recurrent kind, beside a window.
std::vector<std::vector<MixerConfig>> hybrids() {
  const MixerConfig window{.kind = MixerKind::window, .window = 5};
  return {
      {{.conv = 4}, window},
      {{.kind = MixerKind::linear, .conv = 4, .chunk = 4}, window},
      {{.kind = MixerKind::linear,
        .conv = 4,
        .key_width = 5,
        .chunk = 4,
        .features = LinearFeatures::taylor},
       window},
      {{.kind = MixerKind::linear, .conv = 4, .chunk = 4, .features = LinearFeatures::performer},
       window},
      {{.kind = MixerKind::retention, .chunk = 4}, window},
      {{.kind = MixerKind::lightning, .conv = 2, .chunk = 4}, window},
      {{.kind = MixerKind::ssd, .conv = 4, .heads = 3, .key_width = 6, .chunk = 4}, window},
      {{.kind = MixerKind::delta, .conv = 4, .chunk = 4}, window},
      {{.kind = MixerKind::infini, .conv = 4, .segment = 4}, window},
      {{.kind = MixerKind::gated_delta, .conv = 4, .heads = 6, .groups = 3, .chunk = 4}, window},
  };
}

// Infini-attention, of whose segments ranks hold whole ones.
bool has_segments(const std::vector<MixerConfig>& mixers) {
  return std::ranges::any_of(mixers, [](const MixerConfig& each) { return each.segment > 0; });
}

// Twenty steps of each kind in one layout, some in the other.
TEST(Context, TwentyStepsOfEveryRecurrentMixerEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "recurrent mixers are for the CPU";
  const std::int64_t ranks = world().size();
  bool is_zigzag = true;
  for (const std::vector<MixerConfig>& mixers : hybrids()) {
    for (const SequenceLayout layout : {SequenceLayout::zigzag, SequenceLayout::contiguous}) {
      const bool is_long = (layout == SequenceLayout::zigzag) == is_zigzag;
      expect_as_one_rank({.ranks = ranks,
                          .expert = ranks,
                          .layout = layout,
                          .length = 8 * ranks,
                          .mixers = mixers},
                         is_long ? 20 : 3);
    }
    is_zigzag = !is_zigzag;
  }
}

TEST(Context, RecurrentMixersWithDocumentsAndUnequalPartsEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "recurrent mixers are for the CPU";
  const std::int64_t ranks = world().size();
  for (const std::vector<MixerConfig>& mixers : hybrids()) {
    expect_as_one_rank({.ranks = ranks,
                        .ulysses = ranks % 2 == 0 ? 2 : 1,
                        .length = 8 * ranks,
                        .model = Model::documents,
                        .mixers = mixers},
                       3);
    // Runs that are shorter than the convolution, and of unequal lengths.
    if (!has_segments(mixers))
      expect_as_one_rank({.ranks = ranks, .length = 3 * ranks + 1, .mixers = mixers}, 2);
  }
}

// Attention by patterns of blocks and in segments: parts of ranks end in blocks.
std::vector<std::vector<MixerConfig>> patterns() {
  const MixerConfig bigbird{.kind = MixerKind::blocks,
                            .block = 3,
                            .window_blocks = 2,
                            .global_blocks = 1,
                            .random_blocks = 1};
  const MixerConfig fixed{.kind = MixerKind::blocks,
                          .sinks = 1,
                          .pattern = BlockPattern::fixed,
                          .stride = 5,
                          .summary = 2};
  const MixerConfig strided{
      .kind = MixerKind::blocks, .pattern = BlockPattern::strided, .stride = 3};
  const MixerConfig segment{.kind = MixerKind::segment, .length = 5, .memory = 4, .conv = 2};
  const MixerConfig chosen{
      .kind = MixerKind::hierarchical, .sinks = 1, .block = 3, .window_blocks = 1, .selected = 2};
  const MixerConfig means{.kind = MixerKind::hierarchical,
                          .block = 4,
                          .window_blocks = 2,
                          .selected = 1,
                          .summaries = BlockSummary::mean};
  MixerConfig sums = means;
  sums.summaries = BlockSummary::linear;
  sums.summary = 2;
  sums.block = 1;  // documents have whole ones
  MixerConfig through = segment;
  through.gradient = SegmentGradient::through;
  return {{bigbird, fixed},
          {strided, segment},
          {chosen, means},
          {through, sums},
          {{.kind = MixerKind::window, .window = 7, .slots = 2},
           {.kind = MixerKind::window, .window = 9, .ramp = 4, .span_weight = 1e-3}}};
}

TEST(Context, PatternsOfBlocksSegmentsSlotsAndSpansEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "these patterns are for the CPU";
  const std::int64_t ranks = world().size();
  bool is_zigzag = true;
  for (const std::vector<MixerConfig>& mixers : patterns()) {
    is_zigzag = !is_zigzag;
    expect_as_one_rank({.ranks = ranks,
                        .expert = ranks,
                        .layout = is_zigzag ? SequenceLayout::zigzag : SequenceLayout::contiguous,
                        .length = 8 * ranks,
                        .mixers = mixers},
                       20);
    expect_as_one_rank({.ranks = ranks,
                        .ulysses = ranks % 2 == 0 ? 2 : 1,
                        .length = 6 * ranks + 1,
                        .model = Model::documents,
                        .mixers = mixers},
                       3);
  }
}

TEST(Context, KeysOfDistancesEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "scores by distance are for the CPU";
  const std::int64_t ranks = world().size();
  expect_as_one_rank({.ranks = ranks, .expert = ranks, .length = 8 * ranks, .model = Model::xl},
                     20);
  expect_as_one_rank({.ranks = ranks,
                      .layout = SequenceLayout::contiguous,
                      .length = 6 * ranks + 1,
                      .model = Model::xl_of_documents},
                     3);
}

// Degrees that are neither 1 nor all ranks, and differ: context 3 x expert 2 on 6 ranks, 4 x 2 and
// 2 x 4 on 8.
TEST(Context, EveryPairOfContextAndExpertDegreesEqualsOneRank) {
  for (const std::int64_t context : divisors(world().size()))
    for (const std::int64_t expert : divisors(world().size())) {
      if (context == 1 || expert == 1 || expert == world().size()) continue;  // the tests above
      expect_as_one_rank({.ranks = context, .expert = expert, .length = 4 * context}, 5);
      expect_as_one_rank({.ranks = context,
                          .expert = expert,
                          .length = 4 * context,
                          .model = Model::windows_and_sinks},
                         2);
    }
}

// A thread that moves messages during the computation changes when they arrive, never what comes
// out.
TEST(Context, ProgressByAThreadKeepsTheBits) {
  const std::int64_t ranks = world().size();
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    Config config = config_of(
        {.ranks = ranks, .expert = ranks, .length = 8 * ranks, .model = Model::windows_and_sinks});
    config.run.precision = precision;
    SmallRun polls(world(), config);
    config.parallel.context_split.progress = Progress::thread;
    SmallRun has_thread(world(), config);
    const std::vector<StepResult> wanted = train(polls, 1, 6), got = train(has_thread, 1, 6);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_EQ(got[i].loss, wanted[i].loss) << name_of(precision) << ", step " << i + 1;
      EXPECT_EQ(got[i].gradient_norm, wanted[i].gradient_norm)
          << name_of(precision) << ", step " << i + 1;
    }
    const auto& buckets = polls.trainer.store().buckets();
    const auto& others = has_thread.trainer.store().buckets();
    for (std::size_t b = 0; b < buckets.size(); ++b)
      EXPECT_EQ(std::memcmp(buckets[b].values->data, others[b].values->data,
                            static_cast<std::size_t>(buckets[b].values->num_bytes())),
                0)
          << name_of(precision) << ", bucket " << b;
  }
}

TEST(Context, EverySchemeWithWindowsSinksAndDocuments) {
  const std::int64_t ranks = world().size();
  for (const Model model :
       {Model::full, Model::windows_and_sinks, Model::documents, Model::running_positions,
        Model::alibi, Model::relative, Model::globals, Model::globals_of_documents})
    for (const std::int64_t ulysses : divisors(ranks)) {
      if (4 % ulysses != 0) continue;  // heads
      if (model >= Model::alibi && is_tested_on_card()) continue;
      if (model >= Model::relative && ranks > 4) continue;
      for (const ContextMethod method : {ContextMethod::ring, ContextMethod::all_gather}) {
        // Windows take the gather whatever the method.
        if (model >= Model::globals && method == ContextMethod::all_gather) continue;
        expect_as_one_rank(
            {.ranks = ranks,
             .ulysses = ulysses,
             .expert = ranks,
             .method = method,
             .layout = ulysses == 2 ? SequenceLayout::contiguous : SequenceLayout::zigzag,
             .length = 4 * ranks,
             .model = model},
            1);
      }
    }
}

TEST(Context, PaddedSplitsAreExact) {
  const std::int64_t ranks = world().size();
  for (const Model model : {Model::full, Model::windows_and_sinks, Model::documents, Model::alibi,
                            Model::globals, Model::relative})
    for (const std::int64_t length : {6 * ranks + 1, 6 * ranks + 2 * ranks - 1})
      if (model < Model::relative || ranks <= 4)
        expect_as_one_rank({.ranks = ranks, .expert = ranks, .length = length, .model = model}, 1);
}

// A token file of its own for each process, all of them alike.
class ContextFile : public ScratchFolder {
 protected:
  ContextFile() {
    const auto tokenizer = make_byte_tokenizer();
    TokenFileWriter writer(folder_, *tokenizer);
    for (const Split split : {Split::train, Split::valid})
      for (std::int32_t document = 0; document < 40; ++document) {
        std::vector<std::int32_t> tokens;
        for (std::int32_t i = 0; i < 7 + document * 5 % 31; ++i)
          tokens.push_back((document * 17 + i * i) % 61);
        writer.add_document(split, tokens);
      }
    writer.write(path("tokens.h5"), "[]");
  }
  // Validation loss after two steps on the file.
  EvaluationResult loss_of(Group& group, Config config) const {
    config.model.vocab_size = 260;
    config.parallel = resolved_parallel(config, group.size());
    const std::unique_ptr<Device> device = make_tested_device();
    const Mesh mesh(group, config.parallel);
    Trainer trainer(*device, mesh, config, 257);
    Loader loader(path("tokens.h5"), Split::train, trainer.batch_layout(), 3);
    LoaderSource source(loader);
    for (std::int64_t step = 1; step <= 2; ++step) trainer.step(step, source);
    const FixedBatches batches(loader.file(), Split::valid, trainer.batch_layout());
    return trainer.evaluate(batches);
  }
};

TEST_F(ContextFile, EvaluationWithDocumentsOfAFileEqualsOneRank) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const Model model : {Model::full, Model::documents}) {
    Config config = config_of({.ranks = world().size(), .expert = world().size(), .model = model});
    config.model.sequence_length = 8 * world().size();
    config.train.global_batch = 6;
    const EvaluationResult actual = loss_of(world(), config);
    const EvaluationResult expected = loss_of(*alone, whole(config));
    expect_equal(actual.loss, expected.loss, "validation loss");
    EXPECT_EQ(actual.num_tokens, expected.num_tokens);
  }
}

TEST(Context, DropoutGoesByTheTokensIdentity) {
  const ContextCase c{
      .ranks = world().size(), .expert = world().size(), .length = 8 * world().size()};
  Config config = config_of(c);
  config.model.embedding_dropout = 0.1;
  config.model.residual_dropout = 0.2;
  config.experts.dropout = 0.15;
  const std::unique_ptr<Group> alone = make_local_group("alone");
  SmallRun reference(*alone, whole(config));
  SmallRun run(world(), config);
  expect_equal(train(run, 1, 1).front().loss, train(reference, 1, 1).front().loss, "loss");
  for (const Parameter& parameter : reference.trainer.store().parameters())
    EXPECT_LT(gradient_error(parameter, run, world()), tolerance) << parameter.name();
}

// Recomputed layers neither turn the ring again nor route again; spilled ones come back as they
// were.
TEST(Context, ActivationPoliciesAreBitwiseAlike) {
  const std::int64_t ranks = world().size();
  const auto losses = [&](LayerPolicy policy) {
    Config config = config_of(
        {.ranks = ranks, .expert = ranks, .length = 4 * ranks, .model = Model::windows_and_sinks});
    config.model.num_layers = 4;  // of which two records move when all spill
    config.activations.policy = policy;
    config.activations.store = SpillStore::memory;
    SmallRun run(world(), config);
    std::vector<double> values;
    for (const StepResult& step : train(run, 1, 4)) {
      values.push_back(step.loss);
      values.push_back(step.gradient_norm);
    }
    return values;
  };
  const std::vector<double> kept = losses(LayerPolicy::keep);
  EXPECT_EQ(losses(LayerPolicy::recompute), kept);
  EXPECT_EQ(losses(LayerPolicy::spill), kept);
}

TEST(Context, RecurrentMixersUnderEveryPolicyAndAsPlanned) {
  if (is_tested_on_card()) GTEST_SKIP() << "recurrent mixers are for the CPU";
  const std::int64_t ranks = world().size();
  for (const std::vector<MixerConfig>& mixers : hybrids()) {
    const auto losses = [&](LayerPolicy policy) {
      Config config = config_of({.ranks = ranks,
                                 .expert = ranks,
                                 .length = 8 * ranks + (has_segments(mixers) ? 0 : 1),
                                 .model = Model::documents,
                                 .mixers = mixers});
      config.model.num_layers = 4;
      config.run.precision = Precision::bf16;
      config.activations.policy = policy;
      config.activations.store = SpillStore::memory;
      SmallRun run(world(), config);
      std::vector<double> values;
      for (const StepResult& step : train(run, 1, 2)) {
        values.push_back(step.loss);
        values.push_back(step.gradient_norm);
      }
      const Plan plan = make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes())
          << name_of(policy) << ", " << name_of(mixers.front().kind);
      return values;
    };
    const std::vector<double> kept = losses(LayerPolicy::keep);
    EXPECT_EQ(losses(LayerPolicy::recompute), kept) << name_of(mixers.front().kind);
    EXPECT_EQ(losses(LayerPolicy::spill), kept) << name_of(mixers.front().kind);
  }
}

TEST(Context, PlannedBytesEqualAllocatedBytes) {
  for (const std::int64_t context : divisors(world().size()))
    for (const Precision precision : {Precision::fp32, Precision::bf16})
      for (const ContextMethod method : {ContextMethod::ring, ContextMethod::all_gather})
        for (const std::int64_t remainder : {0, 1}) {  // 1: padded, ranks hold unequal parts
          const ContextCase c{
              .ranks = context,
              .ulysses = context % 2 == 0 ? 2 : 1,
              .expert = world().size(),
              .method = method,
              .length = 8 * context + remainder,
              .model = precision == Precision::fp32 ? Model::full : Model::windows_and_sinks};
          Config config = config_of(c);
          config.run.precision = precision;
          SmallRun run(world(), config);
          train(run, 1, 2);
          const Plan plan =
              make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
          EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes())
              << name_of(precision) << ", " << c.describe();
        }
}

// Exact: heads exchanged or all gathered, and both.
TEST(Context, PlannedBytesOfExactRunsEqualAllocatedBytes) {
  for (const std::int64_t context : divisors(world().size()))
    for (const std::int64_t ulysses : {1, 2}) {
      if (context % ulysses != 0) continue;
      const ContextCase c{.ranks = context,
                          .ulysses = ulysses,
                          .expert = world().size(),
                          .method = ContextMethod::all_gather,
                          .length = 8 * context,
                          .model = Model::windows_and_sinks};
      Config config = config_of(c);
      config.run.precision = Precision::bf16;
      config.numerics.exact = true;
      config.numerics.max_context = context;
      SmallRun run(world(), config);
      train(run, 1, 2);
      const Plan plan = make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes()) << c.describe();
    }
}

TEST(Context, TheSameLayoutRepeatsBitForBit) {
  const ContextCase c{.ranks = world().size(),
                      .expert = world().size(),
                      .length = 8 * world().size(),
                      .model = Model::windows_and_sinks};
  Config config = config_of(c);
  config.run.precision = Precision::bf16;
  SmallRun one(world(), config), two(world(), config);
  const std::vector<StepResult> first = train(one, 1, 5), second = train(two, 1, 5);
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].loss, second[i].loss);
    EXPECT_EQ(first[i].gradient_norm, second[i].gradient_norm);
  }
}

}  // namespace
}  // namespace switchyard::test
