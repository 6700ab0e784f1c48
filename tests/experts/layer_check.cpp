#include "tests/experts/layer_check.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "tests/experts/numbers.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

namespace {

// Relative, by the norm of a whole tensor.
constexpr double f32_tolerance = 1e-5;
// bf16 rounds to nearest with 8 bits: unit 2^-9. A value passes at most eight roundings on its way
// (forward: gate_up, act, y row, sum; then dy row, d_act, d_gate_up, dx), each of relative size one
// unit at most; products and sums between them are fp32 and do not amplify the norm of the error
// beyond a factor of two, since silu(g) u doubles the relative error of its two factors at most.
constexpr double bf16_unit = 1.0 / 512;
constexpr double bf16_tolerance = 2 * 8 * bf16_unit;

// Each row (an expert's matrix) on its own, so that a small one cannot hide behind a large one.
void expect_gradient(const LayerRun& run, const std::string& name, const Doubles& whole,
                     double limit) {
  const Parameter& parameter = run.parameter(name);
  const std::int64_t numel = parameter.spec().global_shape.inner_numel();
  for (std::int64_t e = 0; e < parameter.slice().num_held(); ++e) {
    const std::int64_t global = parameter.slice().index_of(e);
    const Doubles mine = to_doubles(parameter.gradient()[e].flat());
    const double* expected = whole.data() + global * numel;
    EXPECT_LE(relative_error(mine.data(), expected, mine.size()), limit)
        << name << ", expert " << global;
  }
}

// The rows of all ranks by expert are the oracle's, and what it drops is counted.
void expect_counts(const LayerRun::Batch& batch, const LayerCase& c, const Problem& problem) {
  const ReferenceMoe::Forward& expected = problem.forward;
  const std::span<const std::int32_t> mine = batch.counts->span<std::int32_t>();
  std::vector<std::int64_t> counts(mine.begin(), mine.end());
  counts.push_back(batch.saved.route.num_tokens * c.top_k);
  world().all_reduce_values(counts, ReduceOp::sum);
  const std::int64_t num_rows = std::accumulate(counts.begin(), counts.end() - 1, std::int64_t{0});
  EXPECT_EQ(counts.back() - num_rows,
            std::count(problem.moe.dropped.begin(), problem.moe.dropped.end(), true) +
                std::count(problem.moe.given.begin(), problem.moe.given.end(), -1));
  const auto num_experts = static_cast<std::size_t>(c.num_experts);
  for (std::size_t e = 0; e < num_experts; ++e) {
    double wanted = 0;
    for (std::size_t at = e; at < expected.counts.size(); at += num_experts)
      wanted += expected.counts[at];
    for (std::size_t slot = 0; problem.moe.dropped_are_counted && slot < expected.indices.size();
         ++slot)
      wanted -= expected.indices[slot] == e && problem.moe.dropped[slot];
    EXPECT_EQ(static_cast<double>(counts[e]), wanted) << "expert " << e;
  }
}

}  // namespace

double tolerance(DType dtype) {
  return dtype == DType::f32 ? f32_tolerance : bf16_tolerance;
}

std::vector<std::int64_t> expert_degrees() {
  std::vector<std::int64_t> degrees;
  for (int degree = 1; degree <= world().size(); ++degree)
    if (world().size() % degree == 0) degrees.push_back(degree);
  return degrees;
}

ParallelConfig layout(std::int64_t expert_degree) {
  return Mesh::resolved({.expert = expert_degree}, world().size());
}

double error_of(const TensorView& values, const Doubles& whole, std::int64_t first_row) {
  const Doubles mine = to_doubles(values);
  return relative_error(mine.data(), whole.data() + first_row * values.cols(), mine.size());
}

void expect_losses(const LayerRun& run, const ReferenceMoe::Forward& expected) {
  double sums[2] = {run.losses()[0], run.losses()[1]};
  world().all_reduce_values(sums, ReduceOp::sum);
  if (!run.has_router_weights()) {
    EXPECT_EQ(sums[0], 0);
    EXPECT_EQ(sums[1], 0);
    return;
  }
  EXPECT_NEAR(sums[0], expected.balance, 1e-6 * expected.balance);
  EXPECT_NEAR(sums[1], expected.z, 1e-5 * expected.z + 1e-12);
}

void expect_as_oracle(LayerRun& run, const LayerRun::Batch& batch, const LayerCase& c,
                      const Problem& problem) {
  const double limit = tolerance(c.dtype);
  EXPECT_LE(error_of(batch.y, problem.forward.y, run.first_token()), limit);
  EXPECT_LE(error_of(batch.dx, problem.gradients.x, run.first_token()), limit);
  expect_counts(batch, c, problem);
  if (c.router.has_weights()) {
    const Parameter& router = run.parameter("layers.0.router.weight");
    EXPECT_LE(error_of(router.gradient(), problem.gradients.router, 0), limit);
  }
  if (c.router.kind == RouterKind::noisy_top_k) {
    const Parameter& noise = run.parameter("layers.0.router.noise.weight");
    EXPECT_LE(error_of(noise.gradient(), problem.gradients.noise_router, 0), limit);
  }
  const Problem::Latent& latent = problem.latent;
  const bool is_latent = c.latent > 0;
  expect_gradient(run, "layers.0.experts.gate_up.weight",
                  is_latent ? latent.d_gate_up : problem.gradients.gate_up, limit);
  expect_gradient(run, "layers.0.experts.down.weight",
                  is_latent ? latent.d_expert_down : problem.gradients.down, limit);
  if (is_latent) {
    const auto error = [&](const char* name, const Doubles& expected) {
      return error_of(run.parameter(name).gradient(), expected, 0);
    };
    EXPECT_LE(error("layers.0.latent.down.weight", latent.d_down), limit);
    EXPECT_LE(error("layers.0.latent.up.weight", latent.d_up), limit);
  }
  const auto expect_shared = [&](const std::string& name, const Doubles& whole) {
    if (whole.empty()) return;
    EXPECT_LE(error_of(run.parameter("layers.0.shared_experts." + name).gradient(), whole, 0),
              limit)
        << name;
  };
  expect_shared("gate_up.weight", problem.gradients.shared_gate_up);
  expect_shared("down.weight", problem.gradients.shared_down);
  expect_shared("gate.weight", problem.gradients.shared_gate);
}

void check_case(const LayerCase& c) {
  SCOPED_TRACE(c.describe());
  const Problem problem(c);
  EXPECT_GT(problem.forward.margin, 1e-5) << "rounding could change a choice";
  const std::unique_ptr<Device> device = make_tested_device();
  Doubles first_y, first_dx;
  for (const std::int64_t degree : expert_degrees()) {
    SCOPED_TRACE("expert axis " + std::to_string(degree));
    const Mesh mesh(world(), layout(degree));
    LayerRun run(*device, mesh, c);
    LayerRun::Batch& batch = run.add_batch();
    run.load_weights(problem.moe, problem.latent);
    run.load_inputs(batch, problem);
    run.forward(batch);
    run.backward(batch);
    run.reduce_gradients();
    expect_as_oracle(run, batch, c, problem);
    expect_losses(run, problem.forward);
    if (degree == 1) {
      first_y = to_doubles(batch.y);
      first_dx = to_doubles(batch.dx);
    }
    EXPECT_EQ(to_doubles(batch.y), first_y);
    EXPECT_EQ(to_doubles(batch.dx), first_dx);
  }
}

}  // namespace switchyard::test
