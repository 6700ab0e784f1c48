// Rows of the layer: in what order they reach experts, what works while they travel, and buffers
// that grow.
#include <gtest/gtest.h>

#include <cstddef>

#include "tests/experts/layer_check.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/recorded_group.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

// When the rows of the other experts are waited for, those that all tokens share have worked
// already, in both directions.
TEST(SharedExperts, WorkWhileRowsAreOnTheWire) {
  if (world().size() == 1) GTEST_SKIP() << "nothing travels";
  for (const bool shares : {false, true}) {
    const LayerCase c{.shared = {.number = shares ? 1 : 0}};
    const Problem problem(c);
    StartLog log(static_cast<std::uint64_t>(7 + world().rank()));
    RecordedGroup ranks(world(), log);
    const std::unique_ptr<Device> device = make_tested_device();
    const Mesh mesh(ranks, layout(world().size()));
    LayerRun run(*device, mesh, c);
    LayerRun::Batch& batch = run.add_batch();
    run.load_weights(problem.moe);
    run.load_inputs(batch, problem);
    std::vector<double> seconds;  // that experts have worked, at each wait
    log.on_wait = [&](const std::string& what) {
      if (what.starts_with("all_to_all"))
        seconds.push_back(device->profile().known_seconds(Part::experts));
    };
    for (const bool backward : {false, true}) {
      device->profile().reset();
      seconds.clear();
      if (backward)
        run.backward(batch);
      else
        run.forward(batch);
      ASSERT_GE(seconds.size(), 2U);  // there and back, the last two
      EXPECT_EQ(seconds[seconds.size() - 2] > 0, shares) << (backward ? "backward" : "forward");
      EXPECT_GT(seconds.back(), 0);
    }
  }
}

// An expert's rows are the tokens that chose it, of all ranks of the group, by token identity.
TEST(MoeLayerRows, reach_experts_in_the_order_of_token_identity) {
  const LayerCase c{.num_experts = 5, .top_k = 2};
  const Problem problem(c);
  const std::unique_ptr<Device> device = make_tested_device();
  for (const std::int64_t degree : expert_degrees()) {
    const Mesh mesh(world(), layout(degree));
    LayerRun run(*device, mesh, c);
    LayerRun::Batch& batch = run.add_batch();
    run.load_weights(problem.moe);
    run.load_inputs(batch, problem);
    run.forward(batch);
    const std::int64_t group_tokens = run.num_local_tokens() * degree;
    const std::int64_t begin = run.first_token() / group_tokens * group_tokens;
    const Slice& slice = run.parameter("layers.0.experts.down.weight").slice();
    Doubles expected;
    for (std::int64_t held = 0; held < slice.num_held(); ++held)
      for (std::int64_t slot = begin * c.top_k; slot < (begin + group_tokens) * c.top_k; ++slot)
        if (problem.forward.indices[static_cast<std::size_t>(slot)] ==
            static_cast<std::size_t>(slice.index_of(held))) {
          const auto row = problem.x.begin() + slot / c.top_k * c.hidden;
          expected.insert(expected.end(), row, row + c.hidden);
        }
    const Route& route = batch.saved.route;
    EXPECT_EQ(route.num_rows * c.hidden, std::ssize(expected));
    EXPECT_EQ(to_doubles(batch.derived.x_rows->slice_rows(0, route.num_rows)), expected);
  }
}

// A second micro-batch is in flight, skewed so that every buffer grows while the first one's record
// is still to be read.
TEST(MoeLayerRows, buffers_grow_in_place_under_a_pass_in_flight) {
  const LayerCase even{.num_experts = 4, .top_k = 1};
  LayerCase skewed = even;
  skewed.routing = Routing::all_to_last_expert;
  const Problem problem(even);
  Problem other(skewed, "other");
  const std::unique_ptr<Device> device = make_tested_device();
  for (const std::int64_t degree : expert_degrees()) {
    const Mesh mesh(world(), layout(degree));
    LayerRun run(*device, mesh, even);
    LayerRun::Batch& first = run.add_batch();
    LayerRun::Batch& second = run.add_batch();
    run.load_weights(problem.moe);
    run.load_inputs(first, problem);
    run.forward(first);
    const std::int64_t rows_before = run.agree_on_rows();
    const std::byte* address = first.derived.x_rows->data;
    run.load_weights(other.moe);
    run.load_inputs(second, other);
    run.forward(second);
    run.backward(second);
    const std::int64_t rows = run.agree_on_rows();
    EXPECT_TRUE(degree == 1 || rows > rows_before);
    EXPECT_EQ(rows, run.num_local_tokens() * degree);
    run.load_weights(problem.moe);
    run.backward(first);
    run.reduce_gradients();
    EXPECT_EQ(first.derived.x_rows->data, address);
    expect_as_oracle(run, first, even, problem);
  }
}

}  // namespace
}  // namespace switchyard::test
