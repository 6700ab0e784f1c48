// Where experts live changes nothing: under any permutation of them over the places of the ranks,
// with other numbers of places, too, a step has the loss and every gradient that it has with
// experts in order, and what was saved under one placement is loaded under another.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "kernels/host_copy.hpp"
#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard::test {
namespace {

constexpr double tolerance = 1e-5;  // relative, fp32, as between layouts

// Every `step`-th expert, around and around, where contiguous() has them one after another; ranks
// that have one place less there may have one more here. step and num_experts have no common
// divisor, so that each expert comes once.
Placement permuted(std::int64_t num_experts, int num_ranks, std::int64_t step) {
  std::vector<std::vector<std::int64_t>> experts_of_rank(static_cast<std::size_t>(num_ranks));
  std::int64_t place = 0;
  for (int rank = 0; rank < num_ranks; ++rank)
    for (; place < ((rank + 1) * num_experts + num_ranks - 1) / num_ranks; ++place)
      experts_of_rank[static_cast<std::size_t>(rank)].push_back((place + 1) * step % num_experts);
  return {num_experts, experts_of_rank};
}

SmallRun make_run(const Config& config, std::int64_t step) {
  return {world(), config, make_tested_device(),
          permuted(config.experts.num_experts, static_cast<int>(config.parallel.expert), step)};
}

void expect_near(double actual, double expected, const std::string& what) {
  EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected)) << what;
}

TEST(Placement, ChangesNeitherLossesNorGradients) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const MakeConfig make_config : all_configs)
    for (const std::int64_t expert : divisors(world().size())) {
      SCOPED_TRACE("expert " + std::to_string(expert));
      const Config config = make_config(expert);
      SmallRun on_one_rank(*alone, make_config(1));
      SmallRun in_order(world(), config);
      SmallRun run = make_run(config, 2);
      on_one_rank.train(1, 1);
      const StepResult first = run.train(1, 1).front(), wanted = in_order.train(1, 1).front();
      EXPECT_EQ(first.loss, wanted.loss);
      EXPECT_EQ(first.losses.balance, wanted.losses.balance);
      EXPECT_EQ(first.load.max_over_mean, wanted.load.max_over_mean);
      expect_near(first.gradient_norm, wanted.gradient_norm, "gradient norm");
      for (const Parameter& parameter : on_one_rank.trainer.store().parameters())
        EXPECT_LT(gradient_error(parameter, run, world()), tolerance) << parameter.name();
      const std::vector<StepResult> steps = run.train(2, 8), expected = in_order.train(2, 8);
      for (std::size_t i = 0; i < steps.size(); ++i)
        expect_near(steps[i].loss, expected[i].loss, "step " + std::to_string(i + 2));
    }
}

// Values and both moments of all parameters and ranks, by the elements of the global tensors.
std::vector<double> everything(SmallRun& run) {
  const AdamW& optimizer = run.trainer.optimizer();
  std::vector<double> all;
  for (const Parameter& parameter : run.trainer.store().parameters()) {
    const auto numel = static_cast<std::size_t>(parameter.spec().global_shape.numel());
    const std::size_t begin = all.size();
    all.resize(begin + 3 * numel);
    for (const OwnedRange& range : run.trainer.store().owned_ranges()) {
      if (range.parameter->name() != parameter.name()) continue;
      const TensorView value =
          range.bucket->values->slice_rows(range.bucket_begin, range.bucket_begin + range.numel);
      std::size_t at = begin;
      for (const TensorView& part : {value, optimizer.moment1(range), optimizer.moment2(range)}) {
        const kernels::HostContents<float> contents(part);
        for (const SlicePiece& piece : range.counted_pieces())
          for (std::int64_t i = 0; i < piece.numel; ++i)
            all[at + static_cast<std::size_t>(piece.global_begin + i)] =
                contents.span()[static_cast<std::size_t>(piece.local_begin + i)];
        at += numel;
      }
    }
  }
  world().all_reduce_values(all, ReduceOp::sum);  // one number and zeros
  return all;
}

TEST(Placement, CheckpointsLoadUnderAnyOther) {
  const TemporaryFolder folder(world());
  for (const std::int64_t expert : divisors(world().size())) {
    SCOPED_TRACE("expert " + std::to_string(expert));
    const Config config = small_config(expert);
    SmallRun saved = make_run(config, 2);
    saved.train(1, 2);
    SaveRequest request;
    request.folder = folder.path() + "/" + std::to_string(expert);
    request.state.step = 2;
    request.configuration = "test: true\n";
    const std::string path =
        save_checkpoint(request, saved.trainer.store(), saved.trainer.optimizer(), world(),
                        [](const std::string&) {})
            .path;
    const std::vector<double> wanted = everything(saved);
    const double wanted_loss = saved.train(3, 3).front().loss;
    for (const std::int64_t step : {1, 2, 3}) {
      SmallRun loaded = make_run(config, step);
      load_checkpoint(path, loaded.trainer.store(), &loaded.trainer.optimizer(), world());
      loaded.trainer.weights_changed();
      EXPECT_EQ(everything(loaded), wanted);
      EXPECT_EQ(loaded.train(3, 3).front().loss, wanted_loss);
    }
  }
}

double distance(const std::vector<double>& actual, const std::vector<double>& wanted) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    difference += (actual[i] - wanted[i]) * (actual[i] - wanted[i]);
    size += wanted[i] * wanted[i];
  }
  return std::sqrt(difference / size);
}

// Experts that move while a run goes on take their weights and moments with them: the steps are
// those of a run whose experts stay, in exact mode bit for bit.
TEST(Placement, MovingExpertsChangesNoStep) {
  for (const MakeConfig make_config : all_configs)
    for (const bool exact : {false, true})
      for (const std::int64_t expert : divisors(world().size())) {
        SCOPED_TRACE(::testing::Message() << "expert " << expert << ", exact " << exact);
        Config config = make_config(expert);
        config.numerics.exact = exact;
        SmallRun staying(world(), config);
        config.experts.placement.every = 2;
        config.experts.placement.least_gain = 0;
        SmallRun moving(world(), config);
        std::int64_t num_moved = 0;
        for (std::int64_t step = 1; step <= 8; ++step) {
          const StepResult wanted = staying.train(step, step).front();
          const StepResult result = moving.train(step, step).front();
          EXPECT_EQ(result.load.by_layer, wanted.load.by_layer);
          if (exact) {
            EXPECT_EQ(result.loss, wanted.loss) << "step " << step;
            EXPECT_EQ(result.gradient_norm, wanted.gradient_norm) << "step " << step;
          } else {
            expect_near(result.loss, wanted.loss, "step " + std::to_string(step));
            expect_near(result.gradient_norm, wanted.gradient_norm, "norm");
          }
          EXPECT_EQ(result.moved.has_value(), expert > 1 && step % 2 == 0);
          if (!result.moved) continue;
          num_moved += result.moved->num_experts;
          EXPECT_LE(result.moved->imbalance_after, result.moved->imbalance_before);
          // gate, up and down of an expert on every replica, and two moments once.
          const std::int64_t numel = 3 * config.model.hidden * config.experts.intermediate;
          const auto replicas = static_cast<std::int64_t>(world().size()) / expert;
          EXPECT_LE(result.moved->bytes,
                    static_cast<double>(result.moved->num_experts * numel * 4 * (replicas + 2)) +
                        static_cast<double>(2 * 4 * numel * config.experts.num_experts *
                                            result.moved->num_layers));
        }
        // Three experts on three ranks or four have nothing to change places for.
        if (make_config == small_config || expert < 3) {
          EXPECT_EQ(num_moved > 0, expert > 1);
        }
        if (exact)
          EXPECT_EQ(everything(moving), everything(staying));
        else
          EXPECT_LT(distance(everything(moving), everything(staying)), tolerance);
      }
}

// Experts at several places: the first one has a replica on the last rank, or on more.
std::vector<std::vector<std::int64_t>> orders_with_replicas(std::int64_t num_experts) {
  std::vector<std::int64_t> once(static_cast<std::size_t>(num_experts));
  std::iota(once.begin(), once.end(), 0);
  std::vector<std::int64_t> twice = once, often = once;
  twice.push_back(0);
  for (const std::int64_t expert : {0, 1, 0}) often.push_back(expert);
  return {twice, often};
}

// Of all experts' tensors that this rank holds: whether each element is that of the global tensors.
void expect_replicas_are_equal(SmallRun& run, const std::vector<double>& all) {
  std::size_t begin = 0;
  for (const Parameter& parameter : run.trainer.store().parameters()) {
    const kernels::HostContents<float> held(parameter.value());
    for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
      ASSERT_EQ(
          held.span()[static_cast<std::size_t>(i)],
          static_cast<float>(all[begin + static_cast<std::size_t>(parameter.global_index(i))]))
          << parameter.name();
    begin += 3 * static_cast<std::size_t>(parameter.spec().global_shape.numel());
  }
}

// What a run saved, in a run with one place an expert, and in one with replicas again.
void expect_loads_elsewhere(SmallRun& saved, const Config& config, const std::string& folder) {
  SaveRequest request;
  request.folder = folder;
  request.state.step = 2;
  request.configuration = "test: true\n";
  const std::string path =
      save_checkpoint(request, saved.trainer.store(), saved.trainer.optimizer(), world(),
                      [](const std::string&) {})
          .path;
  const std::vector<double> wanted = everything(saved);
  for (const std::vector<std::int64_t>& order :
       {std::vector<std::int64_t>{}, orders_with_replicas(config.experts.num_experts).back()}) {
    Config other = config;
    other.experts.placement.order = order;
    SmallRun loaded(world(), other);
    load_checkpoint(path, loaded.trainer.store(), &loaded.trainer.optimizer(), world());
    EXPECT_EQ(everything(loaded), wanted);
    expect_replicas_are_equal(loaded, wanted);
  }
}

struct ReplicaCase {
  std::string name;
  std::function<void(Config&)> change;
  bool is_saved = false;
  bool is_plain = false;  // also without exact mode, and with few replicas
};

std::vector<ReplicaCase> replica_cases() {
  return {{"plain", [](Config&) {}, false, true},
          {"biases, two sequences a unit",
           [](Config& c) {
             c.experts.bias = true;
             c.numerics.unit_sequences = 2;
           },
           true},
          {"token by token through nodes, in chunks",
           [](Config& c) {
             c.experts.dispatch = {
                 .kind = DispatchKind::hierarchical, .ranks_per_node = 2, .chunks = 2};
           }},
          {"padded", [](Config& c) {
             c.experts.capacity_factor = 0.9;
             c.experts.capacity_padding = true;
           }}};
}

// Replicas of an expert share its rows by the sequences that these are of, and add up their
// gradients: in exact mode the steps, weights and moments are those of one place an expert, bit for
// bit; otherwise to rounding. All replicas stay equal, and what was saved loads without them.
TEST(Placement, ReplicasChangeNoStep) {
  const TemporaryFolder folder(world());
  int num_saved = 0;
  for (const ReplicaCase& each : replica_cases())
    for (const bool exact : {true, false})
      for (const std::int64_t expert : divisors(world().size())) {
        if (expert == 1 || (!exact && !each.is_plain)) continue;  // no rank holds one twice
        Config config = small_config(expert);
        each.change(config);
        config.numerics.exact = exact;
        SmallRun once(world(), config);
        const std::vector<StepResult> wanted = once.train(1, 2);
        for (const std::vector<std::int64_t>& order :
             orders_with_replicas(config.experts.num_experts)) {
          if (!each.is_plain && std::ssize(order) == config.experts.num_experts + 1) continue;
          SCOPED_TRACE(::testing::Message() << each.name << ", expert " << expert << ", exact "
                                            << exact << ", places " << order.size());
          config.experts.placement.order = order;
          SmallRun run(world(), config);
          ASSERT_TRUE(run.trainer.placements().front().has_replicas());
          const std::vector<StepResult> steps = run.train(1, 2);
          for (std::size_t i = 0; i < steps.size(); ++i) {
            EXPECT_EQ(steps[i].load.by_layer, wanted[i].load.by_layer);
            if (exact) {
              EXPECT_EQ(steps[i].loss, wanted[i].loss);
              EXPECT_EQ(steps[i].gradient_norm, wanted[i].gradient_norm);
            } else {
              expect_near(steps[i].loss, wanted[i].loss, "loss");
              expect_near(steps[i].gradient_norm, wanted[i].gradient_norm, "norm");
            }
          }
          const std::vector<double> mine = everything(run);
          if (exact)
            EXPECT_EQ(mine, everything(once));
          else
            EXPECT_LT(distance(mine, everything(once)), tolerance);
          expect_replicas_are_equal(run, mine);
          const Plan plan =
              make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
          EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
          if (each.is_saved)
            expect_loads_elsewhere(run, config, folder.path() + "/" + std::to_string(++num_saved));
        }
        config.experts.placement.order.clear();
      }
}

// Replicas that go to the experts with the most rows, every second step: weights and moments are
// copied, and the steps stay those of one place an expert.
TEST(Placement, MovingReplicasChangesNoStep) {
  const TemporaryFolder folder(world());
  int num_saved = 0;
  for (const std::int64_t replicas : {1, 4})
    for (const bool exact : {true, false})
      for (const std::int64_t expert : divisors(world().size())) {
        if (expert == 1 || (!exact && replicas == 1)) continue;  // no rank holds one twice
        SCOPED_TRACE(::testing::Message()
                     << replicas << " replicas, expert " << expert << ", exact " << exact);
        Config config = small_config(expert);
        config.numerics.exact = exact;
        config.experts.bias = true;
        SmallRun staying(world(), config);
        config.experts.placement.every = 2;
        config.experts.placement.replicas = replicas;
        config.experts.placement.least_gain = 0;
        SmallRun moving(world(), config);
        const auto places = moving.trainer.placements().front().num_places();
        EXPECT_GT(places, config.experts.num_experts);
        std::int64_t num_moved = 0;
        for (std::int64_t step = 1; step <= 5; ++step) {
          const StepResult wanted = staying.train(step, step).front();
          const StepResult result = moving.train(step, step).front();
          EXPECT_EQ(result.load.by_layer, wanted.load.by_layer);
          if (exact) {
            EXPECT_EQ(result.loss, wanted.loss) << "step " << step;
            EXPECT_EQ(result.gradient_norm, wanted.gradient_norm) << "step " << step;
          } else {
            expect_near(result.loss, wanted.loss, "step " + std::to_string(step));
            expect_near(result.gradient_norm, wanted.gradient_norm, "norm");
          }
          ASSERT_EQ(result.moved.has_value(), step % 2 == 0);
          if (!result.moved) continue;
          num_moved += result.moved->num_experts;
          EXPECT_GT(result.moved->num_replicated, 0);
          EXPECT_LE(result.moved->imbalance_after, result.moved->imbalance_before);
        }
        EXPECT_GT(num_moved, 0);
        const std::vector<double> mine = everything(moving);
        if (exact)
          EXPECT_EQ(mine, everything(staying));
        else
          EXPECT_LT(distance(mine, everything(staying)), tolerance);
        expect_replicas_are_equal(moving, mine);
        const Plan plan =
            make_plan(config, world().size(), vocab_size, moving.trainer.agree_on_rows());
        EXPECT_EQ(plan.fullest().peak_bytes, moving.trainer.peak_memory_bytes());
        config.experts.placement = {};
        expect_loads_elsewhere(moving, config, folder.path() + "/" + std::to_string(++num_saved));
      }
}

}  // namespace
}  // namespace switchyard::test
