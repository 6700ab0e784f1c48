// Which keys of the model a checkpoint has otherwise than the run that takes it up.
#include "trainer/checkpoint/resume.hpp"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

const std::string saved =
    "run:\n  output: a\n  seed: 1\n"
    "model:\n  num_heads: 4\n  rope_scaling:\n    kind: none\n    factor: 1\n"
    "  attention: [{kind: full, window: 0}]\n  gone: 3\n"
    "experts:\n  top_k: 2\n";

TEST(ChangedKeys, NothingChanged) {
  EXPECT_TRUE(changed_keys(saved, saved).empty());
  EXPECT_TRUE(changed_keys("", saved).empty());
  EXPECT_TRUE(changed_keys(saved, "").empty());
}

TEST(ChangedKeys, OfModelExpertsAndDataAndOnlyWhatBothHave) {
  const std::string now =
      "run:\n  output: b\n  seed: 2\n"
      "model:\n  num_heads: 8\n  rope_scaling:\n    kind: none\n    factor: 4\n"
      "  attention: [{kind: window, window: 9}]\n  new: 1\n"
      "experts:\n  top_k: 1\n";
  const std::vector<ChangedKey> expected = {
      {"run.seed", "1", "2"},
      {"model.num_heads", "4", "8"},
      {"model.rope_scaling.factor", "1", "4"},
      {"model.attention", "[{kind: full, window: 0}]", "[{kind: window, window: 9}]"},
      {"experts.top_k", "2", "1"}};
  EXPECT_EQ(changed_keys(saved, now), expected);
}

}  // namespace
}  // namespace switchyard
