// The model on 1 to 4 ranks, with the experts over every legal number of them: losses and every
// gradient equal those of one rank with all sequences, and the plan predicts the bytes.
#include <gtest/gtest.h>

#include "tests/model/small_model.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t num_global_sequences = 24;  // a multiple of twice every number of ranks
constexpr std::int64_t length = 5;

std::vector<ModelCase> cases() {
  ModelCase few_experts = all_experts_case();  // fewer than ranks: some hold none
  few_experts.name = "few_experts";
  few_experts.experts.num_experts = 2;
  few_experts.experts.top_k = 1;
  std::vector<ModelCase> all = {mixed_case(), tied_case(),   dropout_case(),
                                few_experts,  shared_case(), mixers_alone_case()};
  if (is_tested_on_card()) return all;
  all.push_back(hybrid_case(recurrent_mixers().back()));
  all.push_back(slots_case());
  all.push_back(spans_case());
  all.back().model.mixer.front().span_weight = 0.02;
  return all;
}

std::vector<std::int64_t> legal_expert_degrees() {
  std::vector<std::int64_t> degrees;
  for (std::int64_t degree = 1; degree <= world().size(); ++degree)
    if (world().size() % degree == 0) degrees.push_back(degree);
  return degrees;
}

struct StepResult {
  LossSums losses;
  reference_model::Values gradients;
};

// All sequences at once on this rank alone.
StepResult step_of_one_rank(const ModelCase& c) {
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch batch(0, num_global_sequences, length, c.vocab_size_used);
  const TokenBatch tokens = batch.on(*rank.device);
  Activations activations(small.model, num_global_sequences, length);
  small.store.zero_gradients();
  StepResult result;
  result.losses = small.train(tokens, activations, pass_over(tokens));
  for (const Parameter& parameter : small.store.parameters()) {
    const std::span<float> gradient = parameter.gradient().span<float>();
    result.gradients[parameter.name()].assign(gradient.begin(), gradient.end());
  }
  return result;
}

// This rank's sequences in two micro-batches, gradients reduced over the replicas.
LossSums step_of_this_rank(SmallModel& small, Device& device, Activations& activations,
                           const ModelCase& c, GradientSync& sync) {
  const std::int64_t micro = num_global_sequences / world().size() / 2;
  small.store.zero_gradients();
  LossSums losses;
  for (std::int64_t step = 0; step < 2; ++step) {
    SmallBatch batch((2 * world().rank() + step) * micro, micro, length, c.vocab_size_used);
    const TokenBatch tokens = batch.on(device);
    Pass pass = pass_over(tokens, 0.5 / world().size());
    pass.sync = &sync;
    if (step == 1) sync.arm();
    const LossSums of_step = small.train(tokens, activations, pass);
    losses = {losses.cross_entropy + of_step.cross_entropy, losses.balance + of_step.balance,
              losses.z + of_step.z};
  }
  sync.finish();
  return losses;
}

// Squares of the difference and of the expected gradient, by parameter, over all ranks.
void expect_equal_gradients(const ParameterStore& store, const reference_model::Values& expected) {
  std::map<std::string, std::pair<double, double>> squares;
  for (const auto& [name, values] : expected) squares[name] = {0, 0};
  for (const OwnedRange& range : store.owned_ranges()) {
    const float* actual = range.bucket->gradients->as<float>() + range.bucket_begin;
    const std::string& name = range.parameter->name();
    const std::vector<double>& values = expected.at(name);
    for (std::int64_t i = 0; i < range.numel; ++i) {
      const double value = values[static_cast<std::size_t>(range.global_index(i))];
      const double difference = static_cast<double>(actual[i]) - value;
      squares[name].first += difference * difference;
      squares[name].second += value * value;
    }
  }
  for (auto& [name, pair] : squares) {
    std::vector<double> sums = {pair.first, pair.second};
    world().all_reduce_values(sums, ReduceOp::sum);
    double norm = 0;
    for (const double value : expected.at(name)) norm += value * value;
    // Every element has exactly one owner.
    EXPECT_NEAR(sums[1], norm, 1e-9 * norm) << name;
    EXPECT_LE(std::sqrt(sums[0]), 1e-5 * std::sqrt(norm)) << name;
  }
}

void expect_equal_losses(const LossSums& mine, const LossSums& expected) {
  std::vector<double> sums = {mine.cross_entropy, mine.balance, mine.z};
  world().all_reduce_values(sums, ReduceOp::sum);
  EXPECT_NEAR(sums[0], expected.cross_entropy, 1e-5 * expected.cross_entropy);
  EXPECT_NEAR(sums[1], expected.balance, 1e-5 * expected.balance);
  EXPECT_NEAR(sums[2], expected.z, 1e-5 * expected.z);
}

TEST(LayoutTest, EveryExpertDegreeGivesOneRanksStep) {
  for (const ModelCase& c : cases()) {
    const StepResult expected = step_of_one_rank(c);
    for (const std::int64_t degree : legal_expert_degrees()) {
      SCOPED_TRACE(c.name + ", expert " + std::to_string(degree));
      const auto device = make_tested_device();
      const Mesh mesh(world(), {.expert = degree});
      SmallModel small(*device, mesh, c);
      Activations activations(small.model, num_global_sequences / world().size() / 2, length);
      GradientSync sync(small.store);
      expect_equal_losses(step_of_this_rank(small, *device, activations, c, sync), expected.losses);
      expect_equal_gradients(small.store, expected.gradients);
    }
  }
}

// Bytes by purpose, at the end and at the peak.
TEST(LayoutTest, ThePlanPredictsTheBytesOfEveryRank) {
  for (const ModelCase& c : cases()) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const std::int64_t degree : legal_expert_degrees()) {
        SCOPED_TRACE(c.name + " " + std::string(name_of(compute)) + ", expert " +
                     std::to_string(degree));
        const ParallelConfig config{.expert = degree};
        const std::int64_t micro = num_global_sequences / world().size() / 2;
        const auto run = [&](Device& device, const Mesh& mesh, std::int64_t planned_rows) {
          SmallModel small(device, mesh, c, compute);
          Activations activations(small.model, micro, length, {.planned_rows = planned_rows});
          GradientSync sync(small.store);
          const LossSums losses = step_of_this_rank(small, device, activations, c, sync);
          if (device.is_plan()) {
            EXPECT_EQ(losses.cross_entropy + losses.balance + losses.z, 0);
          }
          std::int64_t rows = activations.max_rows();
          mesh.group(Axis::expert).all_reduce_values(std::span(&rows, 1), ReduceOp::max);
          activations.reserve_rows(rows);  // as after a step
          return rows;
        };
        const auto cpu = make_tested_device();
        const Mesh mesh(world(), config);
        const std::int64_t max_rows = run(*cpu, mesh, 0);
        const auto plan = make_plan_device();
        const Mesh plan_mesh(*plan, world().rank(), world().size(), config);
        run(*plan, plan_mesh, max_rows);
        EXPECT_GT(cpu->memory().peak_total(), 0);
        for (int i = 0; i < num_purposes; ++i) {
          const auto purpose = static_cast<Purpose>(i);
          EXPECT_EQ(cpu->memory().at_peak(purpose), plan->memory().at_peak(purpose))
              << name_of(purpose);
        }
        EXPECT_GT(plan->profile().total_work().flops, 0);
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::test
