// Sequences split over ranks change neither losses nor gradients: layouts of data x context (ring,
// Ulysses, both, gather, padded) and experts over the same ranks, with documents, windows and
// sinks, against one rank, which each process computes for itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/data/scratch_folder.hpp"
#include "tests/end_to_end/context_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

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
