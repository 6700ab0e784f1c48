// Imported models of every family, trained a few steps, against PyTorch's AdamW on Hugging Face's
// code (tests/golden/families): the loss of each step and every weight after the last, on 1 and 4
// ranks, with the experts on one rank and spread over all.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tested_device.hpp"
#include "tests/trainer/golden_family.hpp"
#include "trainer/agreement.hpp"
#include "trainer/plan.hpp"
#include "trainer/trainer.hpp"

namespace switchyard::test {
namespace {

// Losses are known to a few 2^-24 of themselves, and follow the weights. AdamW divides a gradient
// by its own size, so the relative error of an element of a gradient, a few 2^-24 |gradient| /
// |element|, is that of the way the weight goes.
constexpr double loss_tolerance = 2e-6;    // relative
constexpr double weight_tolerance = 1e-4;  // of the way since the beginning, over all weights

// The same batch in every step.
class GoldenSource final : public BatchSource {
 public:
  GoldenSource(const GoldenCase& golden, const BatchLayout& layout)
      : layout_(layout), tokens_(golden.ids("tokens")), targets_(golden.ids("targets")) {}
  Batch next() override {
    Batch batch;
    const std::int64_t length = layout_.sequence_length;
    const std::int64_t number = std::ssize(tokens_) / length;
    const std::int64_t first = (micro_step_++ * layout_.micro_batch * layout_.data_size +
                                layout_.data_rank * layout_.micro_batch) %
                               number;
    for (std::int64_t g = first; g < first + layout_.micro_batch; ++g) {
      batch.sequence_ids.push_back(g);
      batch.tokens.insert(batch.tokens.end(), tokens_.begin() + g * length,
                          tokens_.begin() + (g + 1) * length);
      batch.targets.insert(batch.targets.end(), targets_.begin() + g * length,
                           targets_.begin() + (g + 1) * length);
    }
    batch.document_starts.resize(batch.sequence_ids.size());
    return batch;
  }

 private:
  BatchLayout layout_;
  std::vector<std::int32_t> tokens_, targets_;
  std::int64_t micro_step_ = 0;
};

// As make_family_golden.py has it.
Config training_of(const GoldenCase& golden, std::int64_t expert) {
  Config config = golden.config();
  config.run.precision = Precision::fp32;
  config.model.sequence_length = golden.length();
  // Hugging Face's code does not move the bias of DeepSeek-V3; neither does a rate that vanishes
  // beside every bias.
  if (config.experts.bias_rate > 0) config.experts.bias_rate = 1e-30;
  config.parallel.expert = expert;
  config.parallel = resolved_parallel(config, world().size());
  config.train = {.num_steps = 5, .global_batch = golden.num_sequences(), .micro_batch = 1};
  constexpr double rate = 5e-3;
  config.optimizer = {.learning_rate = rate,
                      .warmup_steps = 1,
                      .min_learning_rate = rate,
                      .weight_decay = 0.1,
                      .beta1 = 0.9,
                      .beta2 = 0.95,
                      .epsilon = 1e-6,
                      .clip_norm = 0.5};
  return config;
}

// Elements whose owner is this rank.
std::vector<float> owned_weights(const ParameterStore& store) {
  std::vector<float> weights;
  for (const OwnedRange& range : store.owned_ranges())
    if (range.parameter->is_trained()) {
      const float* values = range.bucket->values->as<float>() + range.bucket_begin;
      weights.insert(weights.end(), values, values + range.numel);
    }
  return weights;
}

std::vector<double> wanted_weights(const ParameterStore& store, const GoldenCase& golden) {
  const reference_model::Values all = golden.values_in("trained.safetensors");
  std::vector<double> wanted;
  for (const OwnedRange& range : store.owned_ranges())
    for (std::int64_t i = 0; range.parameter->is_trained() && i < range.numel; ++i)
      wanted.push_back(
          all.at(range.parameter->name())[static_cast<std::size_t>(range.global_index(i))]);
  return wanted;
}

// How far the weights are from the wanted ones, by the way that they went.
double distance(const std::vector<float>& before, const std::vector<float>& after,
                const std::vector<double>& wanted) {
  double sums[2] = {0, 0};
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    sums[0] += std::pow(static_cast<double>(after[i]) - wanted[i], 2);
    sums[1] += std::pow(static_cast<double>(before[i]) - wanted[i], 2);
  }
  world().all_reduce_values(sums, ReduceOp::sum);
  EXPECT_GT(sums[1], 0);
  return std::sqrt(sums[0] / sums[1]);
}

void expect_training(const GoldenCase& golden, const std::string& checkpoint, std::int64_t expert) {
  SCOPED_TRACE("expert " + std::to_string(expert));
  const Config config = training_of(golden, expert);
  const auto device = make_tested_device();
  const Mesh mesh(world(), config.parallel);
  Trainer trainer(*device, mesh, config, config.model.vocab_size);
  load_checkpoint(checkpoint, trainer.store(), nullptr, world());
  trainer.weights_changed();
  const std::vector<float> before = owned_weights(trainer.store());
  const std::vector<float> losses = golden.floats("losses");
  GoldenSource source(golden, trainer.batch_layout());
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const StepResult result = trainer.step(static_cast<std::int64_t>(i) + 1, source);
    EXPECT_NEAR(result.loss / static_cast<double>(losses[i]), 1, loss_tolerance)
        << "step " << i + 1;
  }
  EXPECT_LT(
      distance(before, owned_weights(trainer.store()), wanted_weights(trainer.store(), golden)),
      weight_tolerance);
}

TEST(FamilyTrainingTest, FiveStepsAreThoseOfPyTorch) {
  for (const std::string& name : golden_cases()) {
    SCOPED_TRACE(name);
    const GoldenCase golden(name);
    ASSERT_EQ(golden.floats("losses").size(), 5u);
    const TemporaryFolder folder(world());
    run_together(world(), [&] {
      if (world().rank() == 0) import_to(golden, golden.folder(), folder / "run");
    });
    const std::string checkpoint = folder / "run/checkpoints/step-00000000";
    expect_training(golden, checkpoint, 1);
    if (world().size() > 1 && golden.config().experts.num_experts > 0)
      expect_training(golden, checkpoint, world().size());
  }
}

}  // namespace
}  // namespace switchyard::test
