// Thirty steps of training against PyTorch: loss, gradient norm and learning rate of every step,
// and weights on the way, of tests/golden/trajectories/adamw.h5 (make_trajectory.py there): AdamW,
// clipping in some steps, decay of all but the norms, warm-up and cosine, on every expert degree.
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>

#include "tests/end_to_end/small_run.hpp"
#include "tests/model/mixtral_golden.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

// SWITCHYARD_GOLDEN: where the files are, if not in this repository.
std::string trajectory_path() {
  const char* chosen = std::getenv("SWITCHYARD_GOLDEN");
  return std::string(chosen != nullptr ? chosen : GOLDEN_FOLDER) + "/trajectories/adamw.h5";
}

// Both programs compute in fp32. Losses and norms are known to a few times 2^-24 of themselves.
// A weight w that moves by the learning rate r is known to 2^-24 |w|: after the first step, with w
// 0.15 and r 0.002, that is 4e-6 of the way it went, and less later. AdamW divides a gradient by
// its own size, so the relative error of a gradient's element, a few 2^-24 |gradient| / |element|,
// adds to it. The rates are doubles. Not within any tolerance would be a token whose second and
// third expert are equally probable to 1e-7, for the programs may then choose differently: the
// file's tokens (its seed) are without one.
constexpr double loss_tolerance = 1e-6;    // relative
constexpr double norm_tolerance = 2e-6;    // relative
constexpr double weight_tolerance = 2e-5;  // of the way since the first step, over all weights
constexpr double rate_tolerance = 1e-12;   // relative

// The sequences of the file: number g of the run is row g of tokens [steps * batch, length].
class FileSource final : public BatchSource {
 public:
  FileSource(const hdf5::File& file, const BatchLayout& layout)
      : layout_(layout),
        tokens_(file.open_dataset("tokens").read_all<std::int32_t>()),
        targets_(file.open_dataset("targets").read_all<std::int32_t>()) {}
  Batch next() override {
    Batch batch;
    const std::int64_t length = layout_.sequence_length;
    const std::int64_t first = micro_step_++ * layout_.micro_batch * layout_.data_size +
                               layout_.data_rank * layout_.micro_batch;
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

Config config_of(const hdf5::File& file, std::int64_t expert) {
  const ModelCase c = case_of(file);
  const Shape shape = file.open_dataset("tokens").shape();  // [steps, batch, length]
  Config config;
  config.run.precision = Precision::fp32;
  config.model = c.model;
  config.model.sequence_length = shape[2];
  config.experts = c.experts;
  config.experts.balance_reduction = BalanceReduction::mean;  // as the file's model
  config.parallel.expert = expert;
  config.train = {.num_steps = shape[0], .global_batch = shape[1], .micro_batch = 1};
  OptimizerConfig& optimizer = config.optimizer;
  optimizer.schedule = Schedule::cosine;
  optimizer.warmup_steps = file.integer_attribute("/", "warmup_steps");
  optimizer.learning_rate = real_attribute(trajectory_path(), "learning_rate");
  optimizer.min_learning_rate = real_attribute(trajectory_path(), "min_learning_rate");
  optimizer.weight_decay = real_attribute(trajectory_path(), "weight_decay");
  optimizer.beta1 = real_attribute(trajectory_path(), "beta1");
  optimizer.beta2 = real_attribute(trajectory_path(), "beta2");
  optimizer.epsilon = real_attribute(trajectory_path(), "adam_epsilon");
  optimizer.clip_norm = real_attribute(trajectory_path(), "clip_norm");
  return config;
}

// The part of a parameter that this rank holds, after a step of the file's run.
std::vector<float> weights_of(const hdf5::File& file, std::int64_t step, const Parameter& parameter,
                              std::int64_t num_experts) {
  std::vector<float> whole;
  for (const std::string& name : golden_names(parameter.name(), num_experts)) {
    const std::string dataset = "weights/" + std::to_string(step) + "/" + name;
    const std::vector<float> part = file.open_dataset(dataset).read_all<float>();
    whole.insert(whole.end(), part.begin(), part.end());
  }
  const ParameterSpec& spec = parameter.spec();
  EXPECT_EQ(static_cast<std::int64_t>(whole.size()), spec.global_shape.numel()) << spec.name;
  std::vector<float> held(static_cast<std::size_t>(parameter.local_shape().numel()));
  for (std::size_t i = 0; i < held.size(); ++i)
    held[i] = whole[static_cast<std::size_t>(parameter.global_index(static_cast<std::int64_t>(i)))];
  return held;
}

// How far a run is from the file's, each as its tolerance counts it.
struct Distance {
  double loss = 0, norm = 0, rate = 0, weights = 0;
};

class Trajectory {
 public:
  Trajectory(Group& group, std::int64_t expert, const std::function<void(Config&)>& change = {})
      : group_(group),
        file_(hdf5::File::open(trajectory_path())),
        config_(changed(config_of(file_, expert), change)),
        device_(make_tested_device()),
        mesh_(group, config_.parallel),
        trainer_(*device_, mesh_, config_, config_.model.vocab_size) {
    for (const Parameter& parameter : trainer_.store().parameters())
      if (!parameter.value().empty())
        std::ranges::copy(weights(0, parameter), parameter.value().span<float>().begin());
    trainer_.weights_changed();
  }

  Distance run() {
    const auto losses = file_.open_dataset("losses").read_all<double>();
    const auto norms = file_.open_dataset("gradient_norms").read_all<double>();
    const auto rates = file_.open_dataset("learning_rates").read_all<double>();
    FileSource source(file_, trainer_.batch_layout());
    Distance worst;
    for (std::size_t i = 0; i < losses.size(); ++i) {
      const auto step = static_cast<std::int64_t>(i + 1);
      const StepResult result = trainer_.step(step, source);
      worst.loss = std::max(worst.loss, std::abs(result.loss / losses[i] - 1));
      worst.norm = std::max(worst.norm, std::abs(result.gradient_norm / norms[i] - 1));
      worst.rate = std::max(worst.rate, std::abs(result.learning_rate / rates[i] - 1));
      if (step == 1 || step % 10 == 0)
        worst.weights = std::max(worst.weights, weight_distance(step));
    }
    return worst;
  }

 private:
  Config changed(Config config, const std::function<void(Config&)>& change) const {
    if (change) change(config);
    config.parallel = resolved_parallel(config, group_.size());
    return config;
  }
  std::vector<float> weights(std::int64_t step, const Parameter& parameter) const {
    return weights_of(file_, step, parameter, config_.experts.num_experts);
  }
  // Over what each rank holds; a tensor that several hold counts several times, in both sums.
  double weight_distance(std::int64_t step) {
    double sums[2] = {0, 0};
    for (const Parameter& parameter : trainer_.store().parameters()) {
      if (parameter.value().empty()) continue;
      const std::vector<float> before = weights(0, parameter), wanted = weights(step, parameter);
      const std::span<float> actual = parameter.value().span<float>();
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        sums[0] += std::pow(static_cast<double>(actual[i]) - wanted[i], 2);
        sums[1] += std::pow(static_cast<double>(before[i]) - wanted[i], 2);
      }
    }
    group_.all_reduce_values(sums, ReduceOp::sum);
    return std::sqrt(sums[0] / sums[1]);
  }

  Group& group_;
  hdf5::File file_;
  Config config_;
  std::unique_ptr<Device> device_;
  Mesh mesh_;
  Trainer trainer_;
};

TEST(TrajectoryTest, ThirtyStepsAreThoseOfPyTorch) {
  for (const std::int64_t expert : divisors(world().size())) {
    const Distance d = Trajectory(world(), expert).run();
    SCOPED_TRACE("expert " + std::to_string(expert));
    EXPECT_LT(d.loss, loss_tolerance);
    EXPECT_LT(d.norm, norm_tolerance);
    EXPECT_LT(d.rate, rate_tolerance);
    EXPECT_LT(d.weights, weight_tolerance);
    if (world().rank() == 0)
      std::printf("expert %d: loss %.1e, norm %.1e, rate %.1e, weights %.1e\n",
                  static_cast<int>(expert), d.loss, d.norm, d.rate, d.weights);
  }
}

// Each part of the update matters to the weights, far beyond the tolerance.
TEST(TrajectoryTest, AWrongUpdateIsSeen) {
  struct Mistake {
    const char* name;
    std::function<void(Config&)> change;
  };
  const Mistake mistakes[] = {
      {"no clipping", [](Config& c) { c.optimizer.clip_norm = 0; }},
      {"no decay", [](Config& c) { c.optimizer.weight_decay = 0; }},
      {"another beta2", [](Config& c) { c.optimizer.beta2 = 0.951; }},
      {"another epsilon", [](Config& c) { c.optimizer.epsilon = 1e-5; }},
      {"a linear schedule", [](Config& c) { c.optimizer.schedule = Schedule::linear; }},
      {"a step more of warm-up", [](Config& c) { ++c.optimizer.warmup_steps; }},
  };
  for (const Mistake& mistake : mistakes) {
    const Distance d = Trajectory(world(), 1, mistake.change).run();
    EXPECT_GT(d.weights, 2 * weight_tolerance) << mistake.name;
    if (world().rank() == 0) std::printf("%s: weights %.1e\n", mistake.name, d.weights);
  }
}

}  // namespace
}  // namespace switchyard::test
