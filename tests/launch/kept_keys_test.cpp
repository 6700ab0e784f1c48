#include "launch/commands/kept_keys.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "parallel/group/group.hpp"
#include "tests/launch/config_cases.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace switchyard {
namespace {

class KeptKeys : public testing::Test {
 protected:
  // A checkpoint of the run that keeps this configuration; only its manifest.
  void save(std::int64_t step, const std::string& configuration) const {
    const std::string folder = run_ + "/checkpoints/" + step_folder_name(step);
    std::filesystem::create_directories(folder);
    Manifest manifest;
    manifest.state.step = step;
    manifest.configuration = configuration;
    manifest.num_ranks = 1;
    std::ofstream(folder + "/" + manifest_name) << to_json(manifest);
  }
  LoadedConfig start(std::vector<std::string> overrides = {}) const {
    overrides.insert(overrides.begin(), "run.output=" + run_);
    LoadedConfig loaded = load_config(smallest, "a.yaml", overrides);
    keep_balance_reduction(*group_, loaded);
    return loaded;
  }
  BalanceReduction reduction(const std::vector<std::string>& overrides = {}) const {
    return start(overrides).config.experts.balance_reduction;
  }

  const test::TemporaryFolder folder_;
  const std::string run_ = folder_.path() + "/run";

 private:
  std::unique_ptr<Group> group_ = make_local_group("alone");
};

TEST_F(KeptKeys, ARunGoesOnWithTheReductionThatItHasHad) {
  EXPECT_EQ(reduction(), BalanceReduction::sum) << "a new run";
  save(10, "experts: {top_k: 2}\n");  // of a version without the key
  EXPECT_EQ(reduction(), BalanceReduction::mean);
  EXPECT_EQ(start().warnings,
            std::vector<std::string>{"experts.balance_reduction: mean, as in the run so far; a new "
                                     "run has sum. To change it, set it"});
  EXPECT_EQ(reduction({"experts.balance_reduction=sum"}), BalanceReduction::sum);
  EXPECT_EQ(reduction({"checkpoint.resume=never"}), BalanceReduction::sum);
  EXPECT_EQ(reduction({"run.output=elsewhere", "checkpoint.resume=" + run_}),
            BalanceReduction::mean);
  save(20, "experts: {balance_reduction: sum}\n");
  EXPECT_EQ(reduction(), BalanceReduction::sum);
  EXPECT_TRUE(start().warnings.empty());
  save(30, "experts: {balance_reduction: mean}\n");
  EXPECT_EQ(reduction(), BalanceReduction::mean);
}

}  // namespace
}  // namespace switchyard
