// The costs of the schemes: bytes by the documented formulas and as single ranks record them, the
// lengths at which messages hide, what `auto` takes, and what is refused.
#include <gtest/gtest.h>

#include "parallel/context/context_attention.hpp"
#include "parallel/context/context_choice.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

ParallelConfig context_of(std::int64_t ranks, std::int64_t ring = 0, std::int64_t ulysses = 0,
                          ContextMethod method = ContextMethod::automatic) {
  ParallelConfig config;
  config.context = ranks;
  config.context_split.ring = ring;
  config.context_split.ulysses = ulysses;
  config.context_split.method = method;
  return config;
}

struct Recorded {
  double bytes = 0;
  double flops = 0;
};

// What one layer of the real thing sends and computes on a rank, forward and backward.
std::pair<Recorded, Recorded> recorded(const ContextProblem& p, const ParallelConfig& config,
                                       int rank) {
  const std::unique_ptr<Device> device = make_plan_device();
  const Mesh mesh(*device, rank, static_cast<int>(config.context), config);
  const ContextConfig& context = mesh.config().context_split;
  const SequenceSplit split(p.length, context.ring, context.ulysses, context.layout, context.pad);
  const kernels::KeyPattern pattern = p.patterns.front();
  ContextAttention attention(*device, mesh,
                             {p.num_sequences, p.num_heads, p.num_kv_heads, p.head_dim, 1.0f},
                             p.compute, split, {&pattern, 1});
  const std::int64_t rows = p.num_sequences * split.num_local(rank);
  const auto make = [&](DType dtype, std::int64_t cols) {
    return Tensor(*device, Purpose::activation, dtype, {rows, cols});
  };
  const Tensor q = make(p.compute, p.num_heads * p.head_dim);
  const Tensor k = make(p.compute, p.num_kv_heads * p.head_dim);
  const Tensor lse = make(DType::f32, p.num_heads);
  const auto work_of = [&](auto&& pass) {
    device->profile().reset();
    pass();
    const Work work = device->profile().total_work();
    return Recorded{work.wire_bytes, work.flops};
  };
  const Recorded forward = work_of([&] { attention.forward(pattern, {}, q, k, k, q, lse, {}); });
  const Recorded backward = work_of(
      [&] { attention.backward(pattern, {}, TensorView{}, q, k, k, q, lse, q, q, k, k, {}); });
  return {forward, backward};
}

// The most of any rank.
std::pair<double, double> recorded_bytes(const ContextProblem& p, const ParallelConfig& config) {
  double forward = 0;
  double backward = 0;
  for (int rank = 0; rank < config.context; ++rank) {
    const auto work = recorded(p, config, rank);
    forward = std::max(forward, work.first.bytes);
    backward = std::max(backward, work.second.bytes);
  }
  return {forward, backward};
}

constexpr double n_of(const ContextProblem& p, std::int64_t ranks) {
  return static_cast<double>(p.num_sequences * p.length) / static_cast<double>(ranks);
}

// Of all ranks, and of 24 the chosen ones stand for the others.
TEST(ContextChoiceTest, TheBytesAreThoseOfTheRankThatSendsMost) {
  for (const std::int64_t window : {0, 7, 100})
    for (const std::int64_t num_kv_heads : {1, 2, 8})
      for (const std::int64_t ranks : {2, 3, 4, 8, 24})
        for (const bool pad : {false, true}) {
          const ContextProblem p{.length = pad ? 197 : 192,
                                 .num_sequences = 2,
                                 .num_heads = 8,
                                 .num_kv_heads = num_kv_heads,
                                 .head_dim = 16,
                                 .patterns = {window}};
          ParallelConfig open = context_of(ranks);
          open.context_split.pad = pad;
          for (const SchemeCost& cost : scheme_costs(p, open)) {
            SCOPED_TRACE(testing::Message() << cost.text() << ", window " << window << ", kv heads "
                                            << num_kv_heads << ", padded " << pad);
            ParallelConfig config = context_of(ranks, cost.ring, cost.ulysses, cost.method);
            config.context_split.pad = pad;
            const auto [forward, backward] = recorded_bytes(p, config);
            if (ranks == 24) {  // padded pieces differ by a position, and so by up to an eighth
              EXPECT_NEAR(cost.forward.wire_bytes, forward, forward * (pad ? 0.13 : 0.01));
              EXPECT_NEAR(cost.backward.wire_bytes, backward, backward * (pad ? 0.13 : 0.01));
            } else {
              EXPECT_DOUBLE_EQ(cost.forward.wire_bytes, forward);
              EXPECT_DOUBLE_EQ(cost.backward.wire_bytes, backward);
            }
          }
        }
}

// docs/parallelism.md, for L = 192 positions of 2 sequences, 8 and 2 heads of 16, bf16.
TEST(ContextChoiceTest, TheBytesOfEachSchemeByItsFormula) {
  const ContextProblem p{
      .length = 192, .num_sequences = 2, .num_heads = 8, .num_kv_heads = 2, .head_dim = 16};
  const double d = 2 * 16;
  const double query_cols = 8 * 16;
  const auto cost_of = [&](std::int64_t ring, std::int64_t ulysses, ContextMethod method) {
    return scheme_costs(p, context_of(ring * ulysses, ring, ulysses, method)).at(0);
  };
  const double n = n_of(p, 4);
  const SchemeCost ring = cost_of(4, 1, ContextMethod::ring);
  EXPECT_EQ(ring.forward.wire_bytes, 2 * 3 * n * d * 2);
  EXPECT_EQ(ring.backward.wire_bytes, 2 * 3 * n * d * (2 + 4));
  const SchemeCost ulysses = cost_of(1, 2, ContextMethod::ring);
  const double half = n_of(p, 2) / 2;
  EXPECT_EQ(ulysses.forward.wire_bytes, half * ((2 * query_cols + 2 * d) * 2 + 8 * 4));
  EXPECT_EQ(ulysses.backward.wire_bytes, half * ((3 * query_cols + 4 * d) * 2 + 2 * 8 * 4));
  const SchemeCost both = cost_of(2, 2, ContextMethod::ring);
  const double quarter = n_of(p, 4) / 2;
  EXPECT_EQ(both.forward.wire_bytes,
            quarter * ((2 * query_cols + 2 * d) * 2 + 8 * 4) + 2 * n_of(p, 2) * (d / 2) * 2);
}

// A window sends at most 2 (W - 1) rows a sequence to the neighbours, whatever the length.
TEST(ContextChoiceTest, AWindowSendsItsHalo) {
  ContextProblem p{
      .length = 4096, .num_heads = 8, .num_kv_heads = 2, .head_dim = 16, .patterns = {64}};
  for (const std::int64_t length : {4096, 65536}) {
    p.length = length;
    const SchemeCost cost = scheme_costs(p, context_of(4, 4, 1, ContextMethod::ring)).at(0);
    EXPECT_EQ(cost.forward.wire_bytes, 2 * 63 * 2 * 32 * 2);
    EXPECT_EQ(cost.backward.wire_bytes, 2 * 63 * 2 * 32 * (2 + 4));
  }
}

// n >= b (F / B) / g forward, n >= (2 b + 8) / 4 (F / B) / g backward.
TEST(ContextChoiceTest, TheRingHidesFromTheLengthOfTheFormulas) {
  ParallelConfig config = context_of(8, 8, 1, ContextMethod::ring);
  config.context_split.rank_flops = 1e12;
  config.context_split.link_bytes = 1e9;
  const double ratio = 1e12 / 1e9;
  const double group = 4;
  const auto cost_at = [&](double n) {
    const ContextProblem p{.length = 8 * 2 * static_cast<std::int64_t>(n / 2),
                           .num_heads = 8,
                           .num_kv_heads = 2,
                           .head_dim = 64};
    return scheme_costs(p, config).at(0);
  };
  const double forward = 2 * ratio / group;
  EXPECT_TRUE(cost_at(forward * 1.01).forward.is_hidden);
  EXPECT_FALSE(cost_at(forward * 0.99).forward.is_hidden);
  // The first and the last part of the own block have their share of the bytes beside them, so one
  // length holds for all hops.
  const double backward = (2 * 2 + 8) / 4.0 * ratio / group;
  EXPECT_TRUE(cost_at(backward * 1.01).backward.is_hidden);
  EXPECT_FALSE(cost_at(backward * 0.99).backward.is_hidden);
}

TEST(ContextChoiceTest, AutoTakesTheLeastSeconds) {
  ContextProblem p{.length = 65536, .num_heads = 32, .num_kv_heads = 32, .head_dim = 128};
  // A slow wire and a head for each kv head: Ulysses sends least.
  ParallelConfig slow = context_of(4);
  slow.context_split.link_bytes = 1e7;
  EXPECT_EQ(with_chosen_context(p, slow).context_split.ulysses, 4);
  // With one kv head the ring sends less than Ulysses, and hides.
  p.num_kv_heads = 4;
  const ParallelConfig chosen = with_chosen_context(p, context_of(4));
  EXPECT_EQ(chosen.context_split.ring, 4);
  EXPECT_EQ(chosen.context_split.ulysses, 1);
  EXPECT_EQ(chosen.context_split.method, ContextMethod::ring);
  for (const SchemeCost& cost : scheme_costs(p, context_of(4)))
    EXPECT_GE(cost.seconds(), scheme_costs(p, chosen).at(0).seconds());
}

TEST(ContextChoiceTest, WhatIsDecidedStays) {
  const ContextProblem p{.length = 4096, .num_heads = 8, .num_kv_heads = 2, .head_dim = 64};
  ParallelConfig config = with_chosen_context(p, context_of(4, 2, 0, ContextMethod::all_gather));
  EXPECT_EQ(config.context_split.ring, 2);
  EXPECT_EQ(config.context_split.ulysses, 2);
  EXPECT_EQ(config.context_split.method, ContextMethod::all_gather);
  EXPECT_EQ(with_chosen_context(p, config).context_split.ring, 2);
  EXPECT_EQ(with_chosen_context(p, context_of(1)).context_split.ring, 1);
}

TEST(ContextChoiceTest, TheReasonsWhyNothingIsLegal) {
  const ContextProblem p{.length = 100, .num_heads = 4, .num_kv_heads = 2, .head_dim = 64};
  try {
    scheme_costs(p, context_of(3));
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_EQ(std::string(error.what()),
              "parallel.context: ring 3 x ulysses 1 = 3 ranks cannot share 100 positions equally; "
              "the zigzag layout needs a multiple of 6: make model.sequence_length 96 or 102, or "
              "set parallel.context.pad to true\n"
              "parallel.context.ulysses: 3 ranks cannot share 4 heads and 2 kv heads: it must "
              "divide model.num_heads, and divide model.num_kv_heads or be a multiple of it; "
              "ulysses may be 1, 2, 4");
  }
}

// Only whole kv heads are exchanged, and all else is gathered, whoever asks for nothing else.
TEST(ContextChoiceTest, TheSchemesThatAreExact) {
  const ContextProblem p{
      .length = 192, .num_sequences = 2, .num_heads = 8, .num_kv_heads = 2, .head_dim = 16};
  const auto texts_of = [&](std::int64_t ranks, ContextMethod method) {
    ParallelConfig config = context_of(ranks, 0, 0, method);
    config.context_split.exact = true;
    std::vector<std::string> texts;
    for (const SchemeCost& cost : scheme_costs(p, config)) texts.push_back(cost.text());
    return texts;
  };
  using Texts = std::vector<std::string>;
  for (const ContextMethod method : {ContextMethod::automatic, ContextMethod::all_gather}) {
    EXPECT_EQ(texts_of(2, method), (Texts{"all_gather 2", "ulysses 2"}));
    EXPECT_EQ(texts_of(3, method), (Texts{"all_gather 3"}));
    EXPECT_EQ(texts_of(4, method), (Texts{"all_gather 4", "all_gather 2 x ulysses 2"}));
  }
  EXPECT_THROW(texts_of(2, ContextMethod::ring), ConfigError);
  ParallelConfig config = context_of(2);
  config.context_split.exact = true;
  const ParallelConfig chosen = with_chosen_context(p, config);
  EXPECT_EQ(with_chosen_context(p, chosen).context_split.ulysses, chosen.context_split.ulysses);
}

// Keys and values, and queries with what belongs to them, go to all ranks once each way, and
// nothing comes back.
TEST(ContextChoiceTest, TheBytesAndTheWorkOfTheExactGather) {
  const ContextProblem p{
      .length = 192, .num_sequences = 2, .num_heads = 8, .num_kv_heads = 2, .head_dim = 16};
  ParallelConfig config = context_of(4, 4, 1, ContextMethod::all_gather);
  config.context_split.exact = true;
  const SchemeCost cost = scheme_costs(p, config).at(0);
  const double keys = 2 * n_of(p, 4) * 3 * 2 * 16 * 2;
  EXPECT_EQ(cost.forward.wire_bytes, keys);
  EXPECT_EQ(cost.backward.wire_bytes, keys + n_of(p, 4) * 3 * 8 * (2 * 16 * 2 + 8));
  double forward = 0, backward = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const auto work = recorded(p, config, rank);
    forward += work.first.flops;
    backward += work.second.flops;
  }
  const double pairs = 2 * 192.0 * 193 / 2;
  EXPECT_EQ(forward, 4 * pairs * 8 * 16);
  EXPECT_EQ(backward, 8 * pairs * 8 * 16);
}

// The busiest rank of the ring has its share of the pairs and no more.
TEST(ContextChoiceTest, TheWorkIsSharedEvenly) {
  const ContextProblem p{.length = 1024, .num_heads = 4, .num_kv_heads = 2, .head_dim = 64};
  ParallelConfig config = context_of(4, 4, 1, ContextMethod::ring);
  config.context_split.rank_flops = 1;
  const double pairs = 1024.0 * 1025 / 2;
  const SchemeCost cost = scheme_costs(p, config).at(0);
  EXPECT_DOUBLE_EQ(cost.forward.compute_seconds, 4 * 64 * 4 * pairs / 4);
  // The gradients of three blocks of 256 positions' keys and values are added up.
  EXPECT_DOUBLE_EQ(cost.backward.compute_seconds, 8 * 64 * 4 * pairs / 4 + 3.0 * 256 * 2 * 2 * 64);
}

// Three layers of two kinds are the sum of their costs, and share what travels.
TEST(ContextChoiceTest, LayersAddUpAndShareTheirBlocks) {
  ContextProblem p{.length = 4096, .num_heads = 8, .num_kv_heads = 2, .head_dim = 64};
  const ParallelConfig config = context_of(4, 4, 1, ContextMethod::ring);
  const SchemeCost full = scheme_costs(p, config).at(0);
  p.patterns = {100};
  const SchemeCost window = scheme_costs(p, config).at(0);
  p.patterns = {0, 100, 0};
  const SchemeCost all = scheme_costs(p, config).at(0);
  EXPECT_DOUBLE_EQ(all.backward.wire_bytes,
                   2 * full.backward.wire_bytes + window.backward.wire_bytes);
  EXPECT_DOUBLE_EQ(all.seconds(), 2 * full.seconds() + window.seconds());
  EXPECT_LT(all.memory_bytes, full.memory_bytes + window.memory_bytes);
}

// What the ring holds does not grow with the ranks' number, what is gathered does.
TEST(ContextChoiceTest, TheMemoryOfAScheme) {
  ContextProblem p{.length = 8192, .num_heads = 8, .num_kv_heads = 2, .head_dim = 64};
  const auto bytes_of = [&](std::int64_t ranks, ContextMethod method) {
    p.length = 2048 * ranks;
    const SchemeCost cost = scheme_costs(p, context_of(ranks, ranks, 1, method)).at(0);
    return static_cast<double>(cost.memory_bytes);
  };
  const double block = 2048 * 2 * 2 * 64;  // keys and values
  EXPECT_GT(bytes_of(4, ContextMethod::all_gather), bytes_of(4, ContextMethod::ring));
  EXPECT_GE(bytes_of(8, ContextMethod::all_gather),
            bytes_of(4, ContextMethod::all_gather) + 4 * block * (2 + 4));
  EXPECT_LT(bytes_of(8, ContextMethod::ring), bytes_of(4, ContextMethod::ring) + block);
}

}  // namespace
}  // namespace switchyard
