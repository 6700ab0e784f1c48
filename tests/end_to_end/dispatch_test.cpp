// How rows travel to the experts changes no bit: chunks that travel beside the computation and
// parts of rows that are worked off one after the other give the losses, gradients and weights of
// all rows at once, on whole training steps of every kind, and the plan knows their bytes.
#include "tests/end_to_end/dispatch_run.hpp"

namespace switchyard::test {
namespace {

// Of which experts no two ranks have as many, and some ranks none, on 2, 3 and 4 ranks.
void route_by_scores(Config& config) {
  config.experts.num_experts = 3;
  config.experts.top_k = 2;
  config.experts.router = {};
}

std::vector<DispatchCase> dispatch_cases() {
  return {
      {"all to one expert", [](Config&) {}},
      {"two of three experts", route_by_scores},
      {"many experts of a rank",
       [](Config& c) {
         c.experts.num_experts = 24;
         c.experts.top_k = 3;
         c.experts.router.imbalance = 6;
         c.experts.dropout = 0.1;
       }},
      {"shared experts and a latent space, in bf16",
       [](Config& c) {
         route_by_scores(c);
         c.experts.shared = {.number = 1, .intermediate = 9, .gate = SharedGate::sigmoid};
         c.experts.latent = 20;
         c.run.precision = Precision::bf16;
       }},
      {"recomputed", [](Config& c) { c.activations.policy = LayerPolicy::recompute; }},
      {"spilled", [](Config& c) { c.activations.policy = LayerPolicy::spill; }},
      {"sequences split over the ranks",
       [](Config& c) {
         route_by_scores(c);
         c.parallel.context_split.ring = world().size();
         c.train.micro_batch = c.train.global_batch;
       },
       2},
      {"exact", [](Config& c) { c.numerics.exact = true; }},
      {"exact, by scores, with units of two sequences",
       [](Config& c) {
         route_by_scores(c);
         c.numerics.exact = true;
         c.numerics.unit_sequences = 2;
       }},
  };
}

using Change = std::function<void(ExpertsConfig&)>;

struct Way {
  std::string name;
  Change change;
};

std::vector<Way> ways() {
  return {
      {"2 chunks", [](ExpertsConfig& e) { e.dispatch.chunks = 2; }},
      {"chunks of single experts", [](ExpertsConfig& e) { e.dispatch.chunks = 99; }},
      {"parts", [](ExpertsConfig& e) { e.max_rows = part_rows; }},
      {"all_gather", [](ExpertsConfig& e) { e.dispatch.kind = DispatchKind::all_gather; }},
      {"all_gather in chunks",
       [](ExpertsConfig& e) { e.dispatch = {.kind = DispatchKind::all_gather, .chunks = 3}; }},
      {"all_gather in parts",
       [](ExpertsConfig& e) {
         e.dispatch.kind = DispatchKind::all_gather;
         e.max_rows = part_rows;
       }},
      {"hierarchical, on this host",
       [](ExpertsConfig& e) { e.dispatch.kind = DispatchKind::hierarchical; }},
      {"hierarchical, every rank a node",
       [](ExpertsConfig& e) {
         e.dispatch = {.kind = DispatchKind::hierarchical, .ranks_per_node = 1};
       }},
      {"hierarchical, nodes of two ranks, in chunks",
       [](ExpertsConfig& e) {
         e.dispatch = {.kind = DispatchKind::hierarchical, .ranks_per_node = 2, .chunks = 2};
       }},
      // Rows that come to a rank may fit where tokens that it would pass on do not: so with three
      // experts on three ranks.
      {"hierarchical, nodes of two ranks, with max_rows",
       [](ExpertsConfig& e) {
         e.dispatch = {.kind = DispatchKind::hierarchical, .ranks_per_node = 2};
         e.max_rows = 3000;
       }},
      {"parts in place of chunks",
       [](ExpertsConfig& e) {
         e.dispatch.chunks = 2;
         e.max_rows = part_rows + 100;
       }},
  };
}

TEST(Dispatch, NoWayOfTravellingChangesABit) {
  for (const DispatchCase& each : dispatch_cases()) {
    if (world().size() < each.least_ranks) continue;
    SCOPED_TRACE(each.name);
    Config config = base_config();
    each.change(config);
    SmallRun expected(world(), config);
    const std::vector<StepResult> wanted = expected.train(1, 1);
    const std::int64_t rows = expected.trainer.agree_on_rows();
    for (const Way& way : ways()) {
      SCOPED_TRACE(way.name);
      Config other = config;
      way.change(other.experts);
      SmallRun run(world(), other);
      const std::vector<StepResult> steps = run.train(1, 1);
      for (std::size_t i = 0; i < steps.size(); ++i) {
        EXPECT_EQ(steps[i].loss, wanted[i].loss);
        EXPECT_EQ(steps[i].gradient_norm, wanted[i].gradient_norm);
      }
      expect_same_bits(run, expected);
      // A rank of `hierarchical` may hold more rows for the others of its node than come to it.
      const std::int64_t held = run.trainer.agree_on_rows();
      if (other.experts.dispatch.kind == DispatchKind::hierarchical) {
        EXPECT_GE(held, rows);
      } else {
        EXPECT_EQ(held, rows);
      }
      const Plan plan = make_plan(other, world().size(), vocab_size, held);
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
    }
  }
}

// Where routing is even, as a plan assumes: rank for rank, ranks without experts among them.
TEST(Dispatch, PlansSendWhatRunsSend) {
  std::vector<Way> all = ways();
  for (const std::int64_t ranks_per_node : {1, 2})
    all.push_back({"summed, nodes of " + std::to_string(ranks_per_node),
                   [ranks_per_node](ExpertsConfig& e) { e.dispatch = summed(ranks_per_node); }});
  for (const std::int64_t num_experts : {3, 8}) {
    Config config = base_config();
    config.experts.num_experts = num_experts;
    config.experts.top_k = 2;
    config.experts.router = {.kind = RouterKind::balanced};
    for (const Way& way : all) {
      SCOPED_TRACE(testing::Message() << num_experts << " experts, " << way.name);
      Config other = config;
      way.change(other.experts);
      SmallRun run(world(), other);
      run.device->profile().reset();
      run.train(1, 1);
      const Plan plan = make_plan(other, world().size(), vocab_size);
      for (const Part part : {Part::dispatch, Part::combine, Part::reduction}) {
        SCOPED_TRACE(name_of(part));
        const Work& sent = run.device->profile().work(part);
        const Work& planned = plan.ranks[static_cast<std::size_t>(world().rank())]
                                  .step[static_cast<std::size_t>(part)];
        EXPECT_EQ(sent.wire_bytes, planned.wire_bytes);
        // Single numbers of the host are in the plan alone.
        if (other.experts.dispatch.kind == DispatchKind::all_gather || other.experts.max_rows > 0) {
          EXPECT_LE(sent.control_bytes, planned.control_bytes);
          continue;
        }
        EXPECT_EQ(sent.control_bytes, planned.control_bytes);
        EXPECT_EQ(sent.control_messages, planned.control_messages);
      }
      EXPECT_EQ(run.device->profile().work(Part::dispatch).control_bytes > 0, world().size() > 1);
    }
  }
}

// Rows in fewer bytes: the plan counts them, and losses and gradients change by what the format
// rounds, in chunks and in parts, too. bf16 is off by 2^-8 at most on each of a layer's four ways,
// fp8 by 2^-4 on one and by bf16 on the others; the gradients of all parameters change by less,
// since what experts add is a small part of the stream here.
TEST(Dispatch, PackedRowsChangeResultsByTheirRounding) {
  Config config = base_config();
  config.experts.num_experts = 12;
  config.experts.top_k = 2;
  config.experts.router.imbalance = 4;
  SmallRun expected(world(), config);
  const double wanted = expected.train(1, 1).front().loss;
  const Plan unpacked = make_plan(config, world().size(), vocab_size);
  for (const auto& [wire, bound, share] :
       {std::tuple(kernels::WireFormat::bf16, 0.0005, 0.5),
        std::tuple(kernels::WireFormat::fp8, 0.005, (36.0 / 128 + 3 * 0.5) / 4)})
    for (const std::int64_t chunks : {1, 3})
      for (const std::int64_t max_rows : {std::int64_t{0}, part_rows}) {
        SCOPED_TRACE(testing::Message()
                     << name_of(wire) << ", " << chunks << " chunks, max_rows " << max_rows);
        Config other = config;
        other.experts.dispatch = {.wire = wire, .chunks = chunks};
        other.experts.max_rows = max_rows;
        SmallRun run(world(), other);
        const double loss = run.train(1, 1).front().loss;
        const double difference = gradient_difference(run, expected);
        const Plan plan = make_plan(other, world().size(), vocab_size, run.trainer.agree_on_rows());
        EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
        if (world().size() == 1) {
          EXPECT_EQ(loss, wanted);
          EXPECT_EQ(difference, 0);
          continue;
        }
        EXPECT_NEAR(loss, wanted, bound * wanted / 10);
        EXPECT_LT(difference, bound);
        EXPECT_GT(difference, bound / 100);
        if (max_rows > 0) continue;  // these travel again
        const auto bytes = [](const Plan& of) {
          double sum = 0;
          for (const Part part : {Part::dispatch, Part::combine})
            sum += of.fullest().step[static_cast<std::size_t>(part)].wire_bytes -
                   of.fullest().step[static_cast<std::size_t>(part)].control_bytes;
          return sum;
        };
        EXPECT_NEAR(bytes(make_plan(other, world().size(), vocab_size)) / bytes(unpacked), share,
                    1e-6);
        // A token is packed as its rows are.
        for (const DispatchKind kind : {DispatchKind::all_gather, DispatchKind::hierarchical}) {
          SCOPED_TRACE(name_of(kind));
          other.experts.dispatch.kind = kind;
          SmallRun once(world(), other);
          once.train(1, 1);
          expect_same_bits(once, run);
          EXPECT_EQ(make_plan(other, world().size(), vocab_size, once.trainer.agree_on_rows())
                        .fullest()
                        .peak_bytes,
                    once.trainer.peak_memory_bytes());
        }
      }
}

// Nodes of more ranks than a word has bits. Token t of a rank has the experts 2 t and 2 t + 1, one
// of each rank in turn: its 64 tokens go to one node each, 32 to the other one, where two ranks
// have them. Rank 0 passes on as many tokens of its own as of the other node's first rank.
TEST(Dispatch, PlansKnowNodesOfManyRanks) {
  Config config = small_config(128);
  config.model.sequence_length = 64;
  config.experts.num_experts = 128;
  config.train = {.num_steps = 1, .global_batch = 128, .micro_batch = 1};
  const auto sent = [&](const DispatchConfig& dispatch) {
    config.experts.dispatch = dispatch;
    const RankPlan& rank = make_plan(config, 128, vocab_size).ranks.front();
    const Work& work = rank.step[static_cast<std::size_t>(Part::dispatch)];
    return work.wire_bytes - work.control_bytes;
  };
  const double rows = 32 + (2 * 64 - 2) - (2 * 64 - 1);  // to the node and on, but not to oneself
  EXPECT_EQ(sent({.kind = DispatchKind::hierarchical, .ranks_per_node = 64}) - sent({}),
            rows * static_cast<double>(config.model.num_layers * config.model.hidden) * 4);
}

// Whatever the router does: where all rows go to one rank, it holds no more of them at once.
TEST(Dispatch, MemoryIsBoundedWhereAllTokensGoToOneRank) {
  if (world().size() == 1) GTEST_SKIP() << "nothing travels";
  Config config = base_config();
  config.model.num_layers = 6;
  config.experts.intermediate = 96;
  config.experts.max_rows = part_rows;
  const auto bytes_with = [&](std::int64_t rows) {
    return make_plan(config, world().size(), vocab_size, rows).fullest().peak_bytes;
  };
  const std::int64_t most = worst_case_rows(config, world().size());
  ASSERT_GT(most, part_rows + 500);
  EXPECT_EQ(bytes_with(most), bytes_with(part_rows));
  Config unbounded = config;
  unbounded.experts.max_rows = 0;
  SmallRun run(world(), config), whole(world(), unbounded);
  run.train(1, 1);
  whole.train(1, 1);
  EXPECT_EQ(run.trainer.agree_on_rows(), sequences_of_rank * length * world().size());
  EXPECT_EQ(bytes_with(sequences_of_rank * length * world().size()),
            run.trainer.peak_memory_bytes());
  EXPECT_LT(run.trainer.peak_memory_bytes() + 1'000'000, whole.trainer.peak_memory_bytes());
}

}  // namespace
}  // namespace switchyard::test
