// The plan device allocates, for any rank, the very bytes that the CPU device does, when it is told
// the rows of the fullest rank; without that figure it assumes balance.
#include <gtest/gtest.h>

#include <array>

#include "tests/experts/layer_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

using Bytes = std::array<std::int64_t, num_purposes + 1>;

Bytes bytes_at_peak(Device& device) {
  Bytes bytes{};
  for (int p = 0; p < num_purposes; ++p)
    bytes[static_cast<std::size_t>(p)] = device.memory().at_peak(static_cast<Purpose>(p));
  bytes.back() = device.memory().peak_total();
  return bytes;
}

struct Outcome {
  Bytes bytes;
  std::int64_t max_rows;
  Work work;
};

Outcome run_on_cpu(const Mesh& mesh, const LayerCase& c, const Problem& problem) {
  const std::unique_ptr<Device> device = make_cpu_device();
  LayerRun run(*device, mesh, c);
  LayerRun::Batch& batch = run.add_batch();
  run.load_weights(problem.moe, problem.latent);
  run.load_inputs(batch, problem);
  run.forward(batch);
  run.backward(batch);
  const std::int64_t max_rows = run.agree_on_rows();
  return {bytes_at_peak(*device), max_rows, {}};
}

Outcome run_on_plan(const ParallelConfig& config, const LayerCase& c, std::int64_t planned_rows) {
  const std::unique_ptr<Device> device = make_plan_device();
  const Mesh mesh(*device, world().rank(), world().size(), config);
  LayerRun run(*device, mesh, c, planned_rows);
  LayerRun::Batch& batch = run.add_batch();
  run.forward(batch);
  run.backward(batch);
  return {bytes_at_peak(*device), run.agree_on_rows(), device->profile().total_work()};
}

class PlanTest : public ::testing::TestWithParam<LayerCase> {};

TEST_P(PlanTest, has_the_bytes_of_the_run) {
  const LayerCase& c = GetParam();
  SCOPED_TRACE(c.describe());
  const Problem problem(c);
  for (std::int64_t degree = 1; degree <= world().size(); ++degree) {
    if (world().size() % degree != 0) continue;
    SCOPED_TRACE("expert axis " + std::to_string(degree));
    const ParallelConfig config = Mesh::resolved({.expert = degree}, world().size());
    const Mesh mesh(world(), config);
    const Outcome real = run_on_cpu(mesh, c, problem);
    const Outcome planned = run_on_plan(config, c, real.max_rows);
    EXPECT_EQ(planned.bytes, real.bytes);
    EXPECT_EQ(planned.max_rows, real.max_rows);
    EXPECT_GT(planned.work.flops, 0);
    // Statistics of a micro-step are added up over ranks, whatever the experts' axis.
    const bool adds_statistics = world().size() > 1 && c.scope == BalanceScope::micro_step;
    EXPECT_EQ(planned.work.wire_bytes > 0, degree > 1 || adds_statistics);

    // Balance: the expert axis' slots, spread over its ranks as their experts are.
    const Outcome balanced = run_on_plan(config, c, 0);
    const std::int64_t slots = c.num_tokens / world().size() * degree * c.top_k;
    EXPECT_GE(balanced.max_rows, slots / degree);
    EXPECT_EQ(run_on_plan(config, c, balanced.max_rows).bytes, balanced.bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(
    cases, PlanTest,
    ::testing::Values(
        LayerCase{.num_experts = 1, .top_k = 1}, LayerCase{.num_experts = 3, .top_k = 2},
        LayerCase{.num_experts = 4, .top_k = 2, .dtype = DType::bf16},
        LayerCase{.num_experts = 5, .top_k = 1, .dtype = DType::bf16},
        LayerCase{.num_experts = 5, .top_k = 3},
        LayerCase{.num_experts = 8, .top_k = 2, .dropout = 0.1},
        LayerCase{.num_experts = 4, .router = {.kind = RouterKind::noisy_top_k, .jitter = 0.1}},
        LayerCase{.num_experts = 4,
                  .router = {.kind = RouterKind::noisy_top_k},
                  .scope = BalanceScope::micro_step,
                  .loss = BalanceLoss::importance_and_load},
        LayerCase{.num_experts = 4, .router = {.kind = RouterKind::gshard}},
        LayerCase{
            .num_experts = 4,
            .dtype = DType::bf16,
            .router = {.kind = RouterKind::base, .score = RouterScore::sigmoid, .jitter = 0.1}},
        LayerCase{.num_experts = 4, .dtype = DType::bf16, .dropout = 0.1, .latent = 8},
        LayerCase{.num_experts = 4, .router = {.kind = RouterKind::hash}},
        LayerCase{.num_experts = 4, .shared = {.number = 2}},
        LayerCase{.num_experts = 3,
                  .dtype = DType::bf16,
                  .shared = {.number = 1, .gate = SharedGate::sigmoid}},
        LayerCase{.num_experts = 8,
                  .top_k = 1,
                  .routing = Routing::all_to_last_expert,
                  .dtype = DType::bf16}));

}  // namespace
}  // namespace switchyard::test
