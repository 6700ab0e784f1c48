// The optimizer step of the trainer: what it refuses leaves everything as it was.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tensor/error.hpp"
#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/recorded_group.hpp"

namespace switchyard::test {
namespace {

// The bits of this rank's values and moments.
std::vector<float> weights_and_moments(Trainer& trainer) {
  std::vector<float> all;
  const auto add = [&](const TensorView& view) {
    all.insert(all.end(), view.as<float>(), view.as<float>() + view.numel());
  };
  for (const Bucket& bucket : trainer.store().buckets()) add(bucket.values);
  for (const OwnedRange& range : trainer.store().owned_ranges()) {
    if (!range.parameter->is_trained()) continue;
    add(trainer.optimizer().moment1(range));
    add(trainer.optimizer().moment2(range));
  }
  return all;
}

// All tokens look alike, and logits are about 2e38 for even ones and -2e38 for odd ones: the loss
// of an odd target is 4e38, which is infinity in fp32, and every gradient is below 1e38.
void overflow_losses(Trainer& trainer) {
  for (const Parameter& parameter : trainer.store().parameters()) {
    const std::span<float> values = parameter.value().span<float>();
    if (parameter.name() == "embedding.weight") std::fill(values.begin(), values.end(), 1.0f);
    if (parameter.name() != "head.weight") continue;
    const std::int64_t hidden = trainer.config().model.hidden;
    const float logit = 2e38f / static_cast<float>(hidden);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<std::int64_t>(i) / hidden % 2 == 0 ? logit : -logit;
  }
  trainer.weights_changed();
}

TEST(Step, ALossThatIsNotFiniteChangesNothingThoughTheGradientIs) {
  for (const std::int64_t expert : divisors(world().size())) {
    Config config = small_config(expert);
    config.experts.bias_rate = 0.01;  // state, among the buckets
    SmallRun run(world(), config);
    run.train(1, 1);  // so that the moments are not 0
    overflow_losses(run.trainer);
    const std::vector<float> before = weights_and_moments(run.trainer);
    std::string message;
    try {
      run.train(2, 2);
    } catch (const NumericalError& error) {
      message = error.what();
    }
    EXPECT_EQ(message.substr(0, 35), "step 2: loss inf and gradient norm ") << message;
    const std::vector<float> after = weights_and_moments(run.trainer);
    ASSERT_EQ(before.size(), after.size());
    EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
  }
}

// Exchanges seem differently slow on each rank; what ranks share they start in one order all the
// same, over all groups. Before the weights change all numbers of the step but the experts' load
// travel in one of them; the memory follows where the room for rows grew.
TEST(Step, RanksStartWhatTheyShareInOneOrder) {
  for (const MakeConfig make : all_configs)
    for (const std::int64_t expert : divisors(world().size())) {
      StartLog log(static_cast<std::uint64_t>(17 + world().rank()));
      RecordedGroup ranks(world(), log);
      SmallRun run(ranks, make(expert));
      log.starts.clear();
      run.train(1, 2);
      EXPECT_EQ(difference_of_starts(log, world()), "") << "expert " << expert;
      const std::string report = "all_gather world " + std::to_string(112 * world().size());
      const std::string grown = "all_reduce_values world 1";
      int num_reports = 0;
      int num_grown = 0;
      for (const StartLog::Start& start : log.starts) {
        num_reports += start.what == report;
        num_grown += start.what == grown;
        EXPECT_TRUE(start.what == report || start.what == grown ||
                    start.what.find("_values world") == std::string::npos)
            << start.what;
      }
      EXPECT_EQ(num_reports, 2);
      EXPECT_LE(num_grown, 2);
    }
}

}  // namespace
}  // namespace switchyard::test
