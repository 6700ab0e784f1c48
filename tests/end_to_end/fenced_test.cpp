// The border to the host, held: whole steps of every kind of layer on a device whose memory only
// kernels can touch, with saving, loading, evaluation, capture and generated text. The bits are
// those of the CPU, whose kernels these are; any other access to a tensor ends the test with its
// place.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/host_copy.hpp"
#include "model/decoder.hpp"
#include "tests/end_to_end/evaluation_file.hpp"
#include "tests/end_to_end/step_cases.hpp"
#include "tests/support/fenced_device.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/activations/capture.hpp"
#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard::test {
namespace {

const Report silent = [](const std::string&) {};

void expect_equal_steps(const std::vector<StepResult>& actual,
                        const std::vector<StepResult>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].loss, expected[i].loss) << "step " << i + 1;
    EXPECT_EQ(actual[i].gradient_norm, expected[i].gradient_norm) << "step " << i + 1;
    EXPECT_EQ(actual[i].load.max_over_mean, expected[i].load.max_over_mean) << "step " << i + 1;
  }
}

void expect_equal_values(SmallRun& actual, SmallRun& expected) {
  const std::vector<Bucket>& got = actual.trainer.store().buckets();
  const std::vector<Bucket>& wanted = expected.trainer.store().buckets();
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t b = 0; b < wanted.size(); ++b) {
    const kernels::HostContents<float> one(got[b].values), other(wanted[b].values);
    EXPECT_TRUE(std::ranges::equal(one.span(), other.span())) << "bucket " << b;
  }
}

TEST(Fenced, StepsHaveTheBitsOfTheCpu) {
  for (const StepCase& each : cases_here()) {
    SCOPED_TRACE(each.name);
    SmallRun reference(world(), config_of(each));
    SmallRun fenced(world(), config_of(each), make_fenced_device());
    expect_equal_steps(fenced.train(1, 3), reference.train(1, 3));
    expect_equal_values(fenced, reference);
  }
}

// With one expert rank the host reads a step once, when all of it was put on the stream: the report
// and, of a model with experts, their load.
TEST(Fenced, AStepIsReadOnceWhateverItsLayersAndMicroSteps) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const LayerPolicy policy : {LayerPolicy::keep, LayerPolicy::recompute})
    for (const std::int64_t every : {0, 1}) {
      Config config = small_config(1);
      config.experts.every = every;
      config.model.dense_intermediate = 40;
      config.model.num_layers = 3;
      config.activations.policy = policy;
      SmallRun run(*alone, config, make_fenced_device());
      const std::int64_t before = num_host_waits(*run.device);
      run.train(1, 5);
      EXPECT_EQ(num_host_waits(*run.device) - before, every == 0 ? 5 : 2 * 5)
          << "experts every " << every;
    }
}

TEST(Fenced, SavesAndLoads) {
  const TemporaryFolder folder(world());
  for (const StepCase& each : cases_here()) {
    SCOPED_TRACE(each.name);
    SmallRun saved(world(), config_of(each), make_fenced_device());
    saved.train(1, 2);
    SaveRequest request;
    request.folder = folder.path() + "/" + each.name;
    request.state.step = 2;
    request.configuration = "test: true\n";
    const std::string path =
        save_checkpoint(request, saved.trainer.store(), saved.trainer.optimizer(), world(), silent)
            .path;
    SmallRun loaded(world(), config_of(each), make_fenced_device());
    load_checkpoint(path, loaded.trainer.store(), &loaded.trainer.optimizer(), world());
    loaded.trainer.weights_changed();
    expect_equal_steps(loaded.train(3, 3), saved.train(3, 3));
    expect_equal_values(loaded, saved);
  }
}

// The sequences do not fill the micro-steps, so that there is padding.
TEST(Fenced, EvaluatesAsTheCpu) {
  const TemporaryFolder folder(world());
  const std::string own = folder.path() + "/" + std::to_string(world().rank());
  for (const StepCase& each : cases_here()) {
    SCOPED_TRACE(each.name);
    const Config config = config_of(each);
    const TokenFile tokens(write_evaluation_file(own, 7, config.model.sequence_length));
    SmallRun reference(world(), config);
    SmallRun fenced(world(), config, make_fenced_device());
    const FixedBatches batches(tokens, Split::valid, reference.trainer.batch_layout());
    const EvaluationResult wanted = reference.trainer.evaluate(batches);
    const EvaluationResult got = fenced.trainer.evaluate(batches);
    EXPECT_EQ(got.num_tokens, 7 * config.model.sequence_length);
    EXPECT_GT(wanted.loss, 1);
    EXPECT_EQ(got.loss, wanted.loss);
  }
}

TEST(Fenced, Captures) {
  const TemporaryFolder folder(world());
  Config config = small_config(1);
  config.run.precision = Precision::bf16;
  config.run.output = folder.path();
  config.capture.steps = {1};
  SmallRun run(world(), config, make_fenced_device());
  Capture capture(run.trainer.config(), run.trainer.batch_layout(), world());
  capture.begin_step(1);
  run.trainer.observe_with(&capture);
  run.train(1, 1);
  run.trainer.observe_with(nullptr);
  capture.end_step();
  EXPECT_EQ(capture.finish(), capture.path_of(1));
}

TEST(Fenced, GeneratesTheTokensOfTheCpu) {
  for (const StepCase& each : cases_here()) {
    const Config config = config_of(each);
    if (config.parallel.expert > 1 || config.parallel.context_split.ring > 1 ||
        config.parallel.context_split.ulysses > 1)
      continue;  // text is made by one rank
    SCOPED_TRACE(each.name);
    const std::unique_ptr<Group> alone = make_local_group("alone");
    SmallRun reference(*alone, config);
    SmallRun fenced(*alone, config, make_fenced_device());
    Decoder expected(reference.trainer.model(), 22), actual(fenced.trainer.model(), 22);
    std::vector<std::int32_t> tokens = {3, 1};
    for (int i = 0; i < 20; ++i) {
      const std::span<const float> wanted = expected.append(tokens);
      const std::span<const float> got = actual.append(tokens);
      ASSERT_TRUE(std::ranges::equal(got, wanted)) << "token " << i;
      tokens = {static_cast<std::int32_t>(std::ranges::max_element(wanted) - wanted.begin())};
    }
  }
}

}  // namespace
}  // namespace switchyard::test
