// A run that is saved and loaded goes on as if nothing had happened: bit for bit on the same
// layout, within rounding on another.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard::test {
namespace {

const Report silent = [](const std::string&) {};

std::string save(const std::string& folder, SmallRun& run, std::int64_t step, Group& group) {
  SaveRequest request;
  request.folder = folder;
  request.state.step = step;
  request.configuration = "test: true\n";
  return save_checkpoint(request, run.trainer.store(), run.trainer.optimizer(), group, silent).path;
}

void load(const std::string& path, SmallRun& run, Group& group) {
  ASSERT_EQ(find_damage(path, group, silent), "");
  load_checkpoint(path, run.trainer.store(), &run.trainer.optimizer(), group);
  run.trainer.weights_changed();
}

void expect_equal_bits(SmallRun& expected, SmallRun& actual) {
  const auto& wanted = expected.trainer.store().buckets();
  const auto& got = actual.trainer.store().buckets();
  ASSERT_EQ(wanted.size(), got.size());
  for (std::size_t b = 0; b < wanted.size(); ++b) {
    const TensorView& one = wanted[b].values;
    const TensorView& other = got[b].values;
    ASSERT_EQ(one.num_bytes(), other.num_bytes());
    EXPECT_EQ(std::memcmp(one.data, other.data, static_cast<std::size_t>(one.num_bytes())), 0);
  }
}

TEST(Resume, TheSameLayoutContinuesBitForBit) {
  const TemporaryFolder folder(world());
  int number = 0;
  for (const MakeConfig make_config : all_configs)
    for (const std::int64_t expert : divisors(world().size())) {
      Config config = make_config(expert);
      config.run.precision = Precision::bf16;
      SmallRun unbroken(world(), config), broken(world(), config), resumed(world(), config);
      const std::vector<StepResult> expected = unbroken.train(1, 6);
      broken.train(1, 3);
      const std::string place = folder.path() + "/" + std::to_string(number++);
      load(save(place, broken, 3, world()), resumed, world());
      const std::vector<StepResult> steps = resumed.train(4, 6);
      for (std::size_t i = 0; i < steps.size(); ++i) {
        EXPECT_EQ(steps[i].loss, expected[i + 3].loss);
        EXPECT_EQ(steps[i].gradient_norm, expected[i + 3].gradient_norm);
      }
      expect_equal_bits(unbroken, resumed);
    }
}

// Moments count their updates across runs: a run that begins with weights and moments takes the very
// step that the other would have taken next.
TEST(Resume, MomentsOfAnotherRunGoOnCounting) {
  const TemporaryFolder folder(world());
  Config config = small_config(world().size());
  config.optimizer.schedule = Schedule::constant_decay;  // the same rate in every step
  config.optimizer.warmup_steps = 0;
  SmallRun other(world(), config), begun(world(), config), forgetful(world(), config);
  other.train(1, 3);
  const std::string path = save(folder.path(), other, 3, world());
  for (SmallRun* run : {&begun, &forgetful}) load(path, *run, world());
  other.train(4, 4);
  const auto take_first_step = [](SmallRun& run) {
    SkewedSource source(run.trainer.batch_layout());
    source.seek(3);
    run.trainer.step(1, source);
  };
  begun.trainer.count_earlier_updates(3);
  take_first_step(begun);
  expect_equal_bits(other, begun);
  take_first_step(forgetful);
  double difference = 0;
  for (std::size_t b = 0; b < other.trainer.store().buckets().size(); ++b) {
    const std::span<float> one = other.trainer.store().buckets()[b].values->span<float>();
    const std::span<float> two = forgetful.trainer.store().buckets()[b].values->span<float>();
    for (std::size_t i = 0; i < one.size(); ++i)
      difference = std::max<double>(difference, std::abs(one[i] - two[i]));
  }
  EXPECT_GT(difference, 0);
}

// Without moments a run cannot go on, but begin: at step 0, where they are zeros.
TEST(Resume, WeightsAloneAreACheckpointToBeginWith) {
  const TemporaryFolder folder(world());
  const Config config = small_config(world().size());
  SmallRun written(world(), config), read(world(), config);
  written.train(1, 2);
  SaveRequest request;
  request.folder = folder.path();
  request.configuration = "test: true\n";
  const std::string at_start = save_weights(request, written.trainer.store(), world(), silent).path;
  load(at_start, read, world());
  expect_equal_bits(written, read);
  request.state.step = 2;
  const std::string later = save_weights(request, written.trainer.store(), world(), silent).path;
  ASSERT_EQ(find_damage(later, world(), silent), "");
  SmallRun fresh(world(), config);
  load_checkpoint(later, fresh.trainer.store(), nullptr, world());
  expect_equal_bits(written, fresh);
  std::string message;
  try {
    load_checkpoint(later, fresh.trainer.store(), &fresh.trainer.optimizer(), world());
  } catch (const CheckpointError& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("has weights alone and no moments of the optimizer"), std::string::npos)
      << message;
}

// The ranks 0 ... n - 1 of the world as a world of their own; the others wait outside.
std::unique_ptr<Group> first_ranks(int n) {
  std::vector<int> inside, outside;
  for (int rank = 0; rank < world().size(); ++rank) (rank < n ? inside : outside).push_back(rank);
  std::vector<std::vector<int>> partition = {inside};
  if (!outside.empty()) partition.push_back(outside);
  return world().subgroup("first ranks", partition);
}

// Saved on R ranks with one expert degree, loaded on R' with another, for all pairs.
void expect_any_layout_loads_any_other(MakeConfig make_config) {
  const TemporaryFolder folder(world());
  const std::unique_ptr<Group> alone = make_local_group("alone");
  SmallRun reference(*alone, make_config(1));
  const std::vector<StepResult> expected = reference.train(1, 6);
  for (int savers = 1; savers <= world().size(); ++savers) {
    const std::string place = folder.path() + "/from" + std::to_string(savers);
    std::string path;
    {
      const std::unique_ptr<Group> group = first_ranks(savers);
      if (world().rank() < savers) {
        SmallRun run(*group, make_config(savers));
        run.train(1, 3);
        path = save(place, run, 3, *group);
      }
      world().broadcast_text(path, 0);
    }
    for (int loaders = 1; loaders <= world().size(); ++loaders) {
      SCOPED_TRACE(std::to_string(savers) + " ranks to " + std::to_string(loaders));
      const std::unique_ptr<Group> group = first_ranks(loaders);
      if (world().rank() < loaders) {
        SmallRun run(*group, make_config(divisors(loaders)[divisors(loaders).size() / 2]));
        load(path, run, *group);
        const std::vector<StepResult> steps = run.train(4, 6);
        for (std::size_t i = 0; i < steps.size(); ++i)
          EXPECT_NEAR(steps[i].loss / expected[i + 3].loss, 1.0, 1e-5);
      }
      world().barrier();
    }
  }
}

TEST(Resume, AnyLayoutLoadsWhatAnyOtherSaved) {
  for (const MakeConfig make_config : all_configs) expect_any_layout_loads_any_other(make_config);
}

// A checkpoint does not know how sequences were split, nor does the position in the data.
TEST(Resume, SequencesMaySplitOtherwiseAfterwards) {
  const TemporaryFolder folder(world());
  const std::unique_ptr<Group> alone = make_local_group("alone");
  SmallRun reference(*alone, small_config(1));
  const std::vector<StepResult> expected = reference.train(1, 6);
  using Pair = std::pair<const Config*, const Config*>;
  Config split = small_config(world().size());
  split.parallel.context = world().size();
  split.parallel.context_split.pad = true;  // 16 positions on 3 ranks, too
  const Config apart = small_config(world().size());
  for (const auto& [before, after] : {Pair{&split, &apart}, Pair{&apart, &split}}) {
    const std::string place = folder.path() + (before == &split ? "/split" : "/apart");
    std::string path;
    {
      SmallRun run(world(), *before);
      run.train(1, 3);
      path = save(place, run, 3, world());
    }
    SmallRun run(world(), *after);
    load(path, run, world());
    const std::vector<StepResult> steps = run.train(4, 6);
    for (std::size_t i = 0; i < steps.size(); ++i)
      EXPECT_NEAR(steps[i].loss / expected[i + 3].loss, 1.0, 1e-5);
  }
}

}  // namespace
}  // namespace switchyard::test
