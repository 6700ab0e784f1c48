// What stands between the data and the device batch: targets and their weights.
#include "trainer/objective.hpp"

#include <gtest/gtest.h>

#include "kernels/rows/cross_entropy.hpp"
#include "trainer/device_batch.hpp"

namespace switchyard::test {
namespace {

BatchLayout small_layout() {
  BatchLayout layout;
  layout.sequence_length = 3;
  layout.global_batch = 4;
  layout.micro_batch = 2;
  return layout;
}

Batch small_batch() {
  Batch batch;
  batch.tokens = {1, 2, 3, 4, 5, 6};
  batch.targets = {2, 3, 4, 5, 6, 7};
  batch.sequence_ids = {0, 1};
  return batch;
}

template <class T>
std::vector<T> contents_of(const TensorView& view) {
  const std::span<T> values = view.span<T>();
  return {values.begin(), values.end()};
}

TEST(CausalObjectiveTest, EveryTokenIsFollowedByTheNextAndPaddingByNothing) {
  CausalObjective objective(small_layout());
  Batch batch = small_batch();
  Examples examples = objective.examples(batch);
  EXPECT_TRUE(std::ranges::equal(examples.tokens, batch.tokens));
  EXPECT_TRUE(std::ranges::equal(examples.targets, batch.targets));
  EXPECT_TRUE(examples.weights.empty());
  EXPECT_EQ(objective.total_weight(4), 12);

  batch.num_padding = 1;
  examples = objective.examples(batch);
  constexpr std::int32_t none = kernels::no_target;
  EXPECT_TRUE(std::ranges::equal(examples.targets, std::vector{2, 3, 4, none, none, none}));
  EXPECT_TRUE(std::ranges::equal(examples.tokens, batch.tokens));
  batch.num_padding = 0;
  EXPECT_TRUE(std::ranges::equal(objective.examples(batch).targets, batch.targets));
}

TEST(CausalObjectiveTest, WeightsAreTheBatchesAndSumUpToWhatTheBatchesSay) {
  BatchLayout layout = small_layout();
  layout.with_weights = true;
  CausalObjective objective(layout);
  EXPECT_TRUE(objective.has_weights());
  EXPECT_EQ(objective.total_weight(4), 12);
  Batch batch = small_batch();
  batch.weights = {0, 1, 1, 0, 0, 1};
  batch.num_targets = 7;
  EXPECT_TRUE(std::ranges::equal(objective.examples(batch).weights, batch.weights));
  EXPECT_EQ(objective.total_weight(4), 7);
}

// Learns to repeat each token, later ones more than earlier ones.
class RepeatObjective final : public Objective {
 public:
  bool has_weights() const override { return true; }
  Examples examples(const Batch& batch) override { return {batch.tokens, batch.tokens, weights_}; }
  double total_weight(std::int64_t num_sequences) const override {
    return 1.5 * static_cast<double>(num_sequences);
  }

 private:
  std::vector<float> weights_ = {0, 0.5f, 1, 0, 0.5f, 1};
};

TEST(DeviceBatchTest, BringsTheObjectivesExamplesToTheDevice) {
  const auto device = make_cpu_device();
  RepeatObjective objective;
  DeviceBatch repeat(*device, small_layout(), objective, false, false);
  const Batch batch = small_batch();
  repeat.upload(batch);
  EXPECT_EQ(contents_of<std::int32_t>(repeat.tokens().targets), batch.tokens);
  EXPECT_EQ(contents_of<float>(repeat.tokens().weights),
            (std::vector<float>{0, 0.5f, 1, 0, 0.5f, 1}));
  CausalObjective causal(small_layout());
  DeviceBatch next(*device, small_layout(), causal, false, false);
  next.upload(batch);
  EXPECT_EQ(contents_of<std::int32_t>(next.tokens().targets), batch.targets);
  EXPECT_TRUE(next.tokens().weights.empty());
}

}  // namespace
}  // namespace switchyard::test
