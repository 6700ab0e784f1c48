// Traces of routing: the same content on every layout, replayed on every other; read by h5py, too.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <numeric>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/routing/routing_replay.hpp"
#include "trainer/routing/trace_statistics.hpp"
#include "trainer/routing/trace_writer.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t num_steps = 3;

// Exact, so that every layout decides alike to the last bit. A dense layer in front.
Config traced_config(const std::string& folder, std::int64_t expert, std::int64_t context) {
  Config config = small_config(expert);
  config.run.output = folder;
  config.model.num_layers = 3;
  config.model.sequence_length = 24;
  config.model.dense_intermediate = 40;
  config.experts.first_dense = 1;
  config.numerics.exact = true;
  config.numerics.max_context = 12;
  config.parallel.context = context;
  config.train = {.num_steps = num_steps, .global_batch = 12, .micro_batch = 1};
  config.trace = {.routing = true, .steps = {1, 2, 3}};
  return config;
}

// Trains all steps and writes their trace, if it is to be written.
std::vector<StepResult> run(Group& group, const Config& config) {
  SmallRun run(group, config);
  const BatchLayout layout = run.trainer.batch_layout();
  if (config.experts.router.replays())
    run.trainer.replay_routing(std::make_unique<RoutingReplay>(config, layout));
  std::vector<StepResult> results;
  if (!config.trace.routing) return run.train(1, num_steps);
  TraceWriter writer(config, layout, 0, group);
  for (std::int64_t step = 1; step <= num_steps; ++step) {
    run.trainer.record_routing(writer.wants(step));
    results.push_back(run.train(step, step).front());
    if (writer.wants(step)) writer.write(step, *run.trainer.routing_record());
    writer.advance(step);
  }
  return results;
}

// Everything in a trace, in order.
struct Contents {
  TraceShape shape;
  std::vector<std::int64_t> ids;
  std::vector<std::int32_t> experts, considered;
  std::vector<float> weights;
  friend bool operator==(const Contents&, const Contents&) = default;
};

void append(auto& to, const auto& values) {
  to.insert(to.end(), values.begin(), values.end());
}

Contents contents_of_trace(const std::string& path) {
  const TraceReader trace(path);
  Contents contents;
  contents.shape = trace.shape();
  for (const std::int64_t step : trace.steps()) {
    const std::vector<std::int64_t> ids = trace.sequence_ids(step);
    append(contents.ids, ids);
    for (std::int64_t row = 0; row < std::ssize(ids); ++row) {
      const PositionRange all{0, trace.shape().sequence_length};
      append(contents.experts, trace.read(TraceReader::What::experts, step, row, all));
      append(contents.considered, trace.read(TraceReader::What::considered, step, row, all));
      append(contents.weights, trace.read_weights(step, row, all));
    }
  }
  return contents;
}

struct Layout {
  std::int64_t expert, context;
};
std::vector<Layout> layouts() {
  const std::int64_t ranks = world().size();
  std::vector<Layout> all = {{1, 1}};
  if (ranks > 1) append(all, std::vector<Layout>{{ranks, 1}, {1, ranks}, {ranks, ranks}});
  return all;
}

void expect_same_losses(const std::vector<StepResult>& actual,
                        const std::vector<StepResult>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].loss, expected[i].loss) << "step " << i + 1;
    EXPECT_EQ(actual[i].gradient_norm, expected[i].gradient_norm) << "step " << i + 1;
    EXPECT_EQ(actual[i].losses.balance, expected[i].losses.balance) << "step " << i + 1;
    EXPECT_EQ(actual[i].load.dropped_fraction, expected[i].load.dropped_fraction);
  }
}

TEST(RoutingTraceTest, HasTheSameContentOnEveryLayout) {
  const TemporaryFolder own;
  const std::unique_ptr<Group> alone = make_local_group("world");
  run(*alone, traced_config(own.path(), 1, 1));
  const Contents expected = contents_of_trace(own.path());
  EXPECT_EQ(expected.shape,
            (TraceShape{.layers = {1, 2}, .num_experts = 5, .top_k = 2, .sequence_length = 24}));
  std::vector<std::int64_t> ids(static_cast<std::size_t>(num_steps * 12));
  std::iota(ids.begin(), ids.end(), 0);
  EXPECT_EQ(expected.ids, ids);
  for (const auto& [expert, context] : layouts()) {
    SCOPED_TRACE(fmt::format("expert {}, context {}", expert, context));
    const TemporaryFolder folder(world());
    run(world(), traced_config(folder.path(), expert, context));
    EXPECT_TRUE(contents_of_trace(folder.path()) == expected);
    EXPECT_TRUE(contents_of_trace(folder / "routing/steps-1-3/trace.h5") == expected);
    EXPECT_FALSE(std::filesystem::exists(folder / "routing/steps-1-1.tmp"));
  }
}

// What a router may be.
struct Kind {
  std::string name;
  void (*set)(ExpertsConfig&);
};
const std::vector<Kind> kinds = {
    {"top_k", [](ExpertsConfig& c) { c.bias_rate = 0.01; }},
    {"noisy", [](ExpertsConfig& c) { c.router.kind = RouterKind::noisy_top_k; }},
    {"gshard", [](ExpertsConfig& c) { c.router.kind = RouterKind::gshard; }},
    {"choice",
     [](ExpertsConfig& c) {
       c.router.kind = RouterKind::expert_choice;
       c.allow_future = true;
     }},
    {"hash", [](ExpertsConfig& c) { c.router.kind = RouterKind::hash; }},
    {"capacity", [](ExpertsConfig& c) { c.capacity_factor = 0.6; }},
    {"by score",
     [](ExpertsConfig& c) {
       c.capacity_factor = 1;
       c.drop_by = kernels::DropBy::score;
       c.allow_future = true;
     }},
};

TEST(RoutingTraceTest, ReplayReproducesTheRunOnOtherLayouts) {
  for (const Kind& kind : kinds) {
    const std::int64_t ranks = world().size();
    const TemporaryFolder folder(world());
    Config config = traced_config(folder.path(), ranks, ranks);
    kind.set(config.experts);
    const std::vector<StepResult> expected = run(world(), config);
    config.trace = {};
    {
      SCOPED_TRACE(kind.name + " on one rank, which chooses");
      Config free = config;
      free.parallel.expert = free.parallel.context = 1;
      const std::unique_ptr<Group> alone = make_local_group("world");
      expect_same_losses(run(*alone, free), expected);
    }
    config.experts.router.replay = folder.path();
    for (const auto& [expert, context] : layouts()) {
      SCOPED_TRACE(fmt::format("{}, expert {}, context {}", kind.name, expert, context));
      config.parallel.expert = expert;
      config.parallel.context = context;
      expect_same_losses(run(world(), config), expected);
    }
    SCOPED_TRACE(kind.name + " on one rank");
    config.parallel.expert = config.parallel.context = 1;
    const std::unique_ptr<Group> alone = make_local_group("world");
    expect_same_losses(run(*alone, config), expected);
  }
}

// The choices are those of the trace, also where the router would take others; and its weights
// still learn.
TEST(RoutingTraceTest, ReplayTakesTheChoicesOfAnotherModel) {
  const TemporaryFolder first(world()), second(world());
  Config config = traced_config(first.path(), world().size(), 1);
  run(world(), config);
  const Contents traced = contents_of_trace(first.path());
  config.run.seed = 77;
  config.run.output = second.path();
  const std::vector<StepResult> free = run(world(), config);
  EXPECT_NE(contents_of_trace(second.path()).experts, traced.experts);
  config.experts.router.replay = first.path();
  const std::vector<StepResult> bound = run(world(), config);
  const Contents replayed = contents_of_trace(second.path());
  EXPECT_EQ(replayed.experts, traced.experts);
  EXPECT_NE(replayed.weights, traced.weights);  // its own
  EXPECT_NE(bound[0].loss, free[0].loss);
  config.experts.balance_weight = config.experts.z_weight = 0;  // the language model's loss is left
  SmallRun run(world(), config);
  run.trainer.replay_routing(std::make_unique<RoutingReplay>(config, run.trainer.batch_layout()));
  run.train(1, 1);
  for (const Parameter& parameter : run.trainer.store().parameters())
    if (parameter.name() == "layers.1.router.weight") {
      const std::span<const std::int64_t> gradient = parameter.gradient().span<std::int64_t>();
      EXPECT_TRUE(std::ranges::any_of(gradient, [](std::int64_t g) { return g != 0; }));
    }
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RoutingTraceTest, WhatIsMissingIsSaid) {
  const TemporaryFolder folder(world());
  Config config = traced_config(folder.path(), 1, 1);
  config.trace.steps = {2, 3};
  run(world(), config);
  config.experts.router.replay = folder.path();
  const SmallRun run(world(), config);
  const BatchLayout layout = run.trainer.batch_layout();
  const RoutingReplay replay(config, layout);
  replay.require(2, 3, 12);
  const auto says = [](const std::string& text, const std::function<void()>& work) {
    const std::string message = message_of(work);
    EXPECT_NE(message.find(text), std::string::npos) << message;
  };
  says("has no step 1, and this run takes the steps 1 to 3; the trace has 2 steps from 2 to 3",
       [&] { replay.require(1, 3, 0); });
  says("in step 2 " + folder.path() + " has no sequence 24 of the data; it has 12 from 12 to 23",
       [&] { replay.require(2, 2, 13); });
  Config other = config;
  other.experts.top_k = 1;
  says("was traced with num_experts 5, top_k 2, layers with experts 1 2, sequence_length 24",
       [&] { const RoutingReplay refused(other, layout); });
  world().barrier();
  const std::string part = folder / "routing/steps-2-3/rank-0.h5";
  if (world().rank() == 0) std::filesystem::remove(part);
  world().barrier();
  says(part + ": is missing or damaged", [&] { const TraceReader refused(folder.path()); });
  const TemporaryFolder empty(world());
  says("there is no trace of routing here", [&] { const TraceReader none(empty.path()); });
}

// A second course of the run leaves nothing of the first behind the step that it goes on from.
TEST(RoutingTraceTest, WhatWasLeftIsReplaced) {
  const TemporaryFolder folder(world());
  Config config = traced_config(folder.path(), 1, 1);
  config.trace.steps = {1, 3};
  run(world(), config);
  EXPECT_EQ(TraceReader(folder.path()).steps(), (std::vector<std::int64_t>{1, 3}));
  world().barrier();
  const SmallRun run(world(), config);
  const TraceWriter writer(config, run.trainer.batch_layout(), 2, world());
  EXPECT_EQ(TraceReader(folder.path()).steps(), (std::vector<std::int64_t>{1}));
}

// What a plan says of the memory of a run that traces and replays is what the run takes.
TEST(RoutingTraceTest, APlanCountsIt) {
  const TemporaryFolder folder(world());
  Config config = traced_config(folder.path(), 1, 1);
  run(world(), config);
  const auto peak = [&](const Config& of) {
    return make_plan(of, world().size(), vocab_size).fullest().peak_bytes;
  };
  Config plain = config;
  plain.trace = {};
  EXPECT_GT(peak(config), peak(plain));
  config.experts.router.replay = folder.path();
  SmallRun run(world(), config);
  run.trainer.replay_routing(std::make_unique<RoutingReplay>(config, run.trainer.batch_layout()));
  run.train(1, 2);
  EXPECT_EQ(run.trainer.peak_memory_bytes(), peak(config));
}

// Two layers' choices, counted by hand.
TEST(RoutingTraceTest, CountsPairs) {
  const TemporaryFolder own;
  const std::unique_ptr<Group> alone = make_local_group("world");
  Config config = traced_config(own.path(), 1, 1);
  config.experts.capacity_factor = 0.8;
  run(*alone, config);
  const Contents contents = contents_of_trace(own.path());
  const std::vector<LayerTraffic> layers = traffic_of(TraceReader(own.path()));
  ASSERT_EQ(layers.size(), 2u);
  std::map<std::array<std::int64_t, 3>, std::int64_t> pairs;
  std::map<std::array<std::int64_t, 2>, std::int64_t> loads;
  const std::int64_t slots = 24 * 2;  // of a sequence and layer
  for (std::size_t i = 0; i < contents.experts.size(); i += 2) {
    const auto layer = static_cast<std::int64_t>(i) / slots % 2;
    const std::int64_t a = contents.experts[i], b = contents.experts[i + 1];
    ++loads[{layer, a}];
    ++loads[{layer, b}];
    if (a >= 0 && b >= 0) ++pairs[{layer, std::min(a, b), std::max(a, b)}];
    EXPECT_EQ(a < 0, contents.weights[i] == 0);
  }
  std::string csv = "layer,first,second,tokens,lift\n";
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    const LayerTraffic& traffic = layers[static_cast<std::size_t>(layer)];
    EXPECT_EQ(traffic.num_tokens, num_steps * 12 * 24);
    EXPECT_GT(traffic.num_dropped, 0);
    EXPECT_EQ(traffic.num_dropped, (loads[{layer, -1}]));
    for (std::int64_t a = 0; a < 5; ++a) {
      EXPECT_EQ(traffic.loads[static_cast<std::size_t>(a)], (loads[{layer, a}]));
      for (std::int64_t b = a + 1; b < 5; ++b) {
        const double lift = static_cast<double>(pairs[{layer, a, b}] * traffic.num_tokens) /
                            static_cast<double>(loads[{layer, a}] * loads[{layer, b}]);
        csv += fmt::format("{},{},{},{},{:.6g}\n", layer + 1, a, b, pairs[{layer, a, b}], lift);
      }
    }
  }
  EXPECT_EQ(coactivation_csv(layers), csv);
}

TEST(RoutingTraceTest, H5pyReadsItInFiveLines) {
  const TemporaryFolder folder(world());
  run(world(), traced_config(folder.path(), 1, world().size()));
  if (world().rank() != 0) return;
  const std::string interpreter = "/usr/bin/python3 -c ";
  if (std::system((interpreter + "'import h5py' 2>/dev/null").c_str()) != 0) {
    std::cout << "NOT TESTED: h5py reads traces (Debian's python3-h5py is not installed)\n";
    return;
  }
  const std::string program = fmt::format(
      "import h5py, numpy\n"
      "with h5py.File(\"{}/routing/steps-1-3/trace.h5\") as f:\n"
      "  ids = f[\"step-2/sequence_ids\"][:]\n"
      "  experts = f[\"step-2/experts\"][:]\n"
      "  weights = f[\"step-2/weights\"][:]\n"
      "  assert list(f[\"layers\"]) == [1, 2] and list(f[\"steps\"]) == [1, 2, 3]\n"
      "assert list(ids) == list(range(12, 24)), ids\n"
      "assert experts.shape == weights.shape == (2, 12, 24, 2), experts.shape\n"
      "assert experts.min() >= 0 and experts.max() < 5\n"
      "assert numpy.all(experts[..., 0] != experts[..., 1])\n"
      "assert numpy.allclose(weights.sum(axis=3), 1, atol=1e-5)\n",
      folder.path());
  EXPECT_EQ(std::system((interpreter + "'" + program + "'").c_str()), 0);
}

}  // namespace
}  // namespace switchyard::test
