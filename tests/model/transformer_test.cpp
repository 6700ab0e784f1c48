// The model on one rank against the double-precision oracle: logits, losses, every gradient; and
// what must not change them: micro-batches, chunks of the head, evaluation.
#include "model/transformer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "kernels/rows/cross_entropy.hpp"
#include "tensor/error.hpp"
#include "tests/model/small_model.hpp"

namespace switchyard::test {
namespace {

constexpr double f32_tolerance = 1e-5;

class TransformerTest : public ::testing::TestWithParam<ModelCase> {};

TEST_P(TransformerTest, LossesAndEveryGradientEqualTheOracles) {
  const ModelCase& c = GetParam();
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch batch(4, 3, 7, c.vocab_size_used);
  const TokenBatch tokens = batch.on(*rank.device);
  const Pass pass = pass_over(tokens);
  Activations activations(small.model, batch.num_sequences, batch.length);
  small.store.zero_gradients();
  const LossSums losses = small.train(tokens, activations, pass);

  reference_model::Transformer oracle = oracle_of(small.store, c);
  const reference_model::Losses expected = oracle.forward(
      batch.tokens, batch.targets, batch.length, masks_of(*rank.device, pass, c.model.hidden));
  oracle.backward();
  ASSERT_GT(oracle.margin, 1e-4) << "a routing that rounding could change";
  EXPECT_NEAR(losses.cross_entropy, expected.cross_entropy, f32_tolerance * expected.cross_entropy);
  EXPECT_NEAR(losses.balance, expected.balance, f32_tolerance * (1 + expected.balance));
  EXPECT_NEAR(losses.z, expected.z, f32_tolerance * (1 + expected.z));
  ASSERT_EQ(small.store.parameters().size(), oracle.gradients.size());
  for (const Parameter& parameter : small.store.parameters())
    EXPECT_LT(gradient_error(parameter, oracle.gradients), f32_tolerance) << parameter.name();
}

// Values that are read where they lie (embedding, norms, sinks) are NaN until their layer is asked
// for, in every pass: so a layer asked for too late, or never, shows in the loss.
TEST_P(TransformerTest, LayersAreAskedForBeforeTheirWeightsAreRead) {
  const ModelCase& c = GetParam();
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch batch(4, 3, 7, c.vocab_size_used);
  const TokenBatch tokens = batch.on(*rank.device);
  Activations activations(small.model, batch.num_sequences, batch.length);
  Pass pass = pass_over(tokens);
  const double wanted = small.evaluate(tokens, activations, pass).cross_entropy;

  std::vector<std::vector<float>> kept;
  const auto hide = [&] {
    for (const Parameter& parameter : small.store.parameters())
      std::ranges::fill(parameter.value().span<float>(), std::numeric_limits<float>::quiet_NaN());
  };
  for (const Parameter& parameter : small.store.parameters()) {
    const std::span<const float> values = parameter.value().span<float>();
    kept.emplace_back(values.begin(), values.end());
  }
  LayerOrder order(small.store.num_layers(), [&](int layer) {
    for (const Parameter& parameter : small.store.parameters())
      if (parameter.layer() == layer)
        std::ranges::copy(kept[static_cast<std::size_t>(parameter.index())],
                          parameter.value().as<float>());
  });
  EXPECT_EQ(small.store.num_layers(), c.model.num_layers + 2);
  pass.order = &order;
  for (int evaluation = 1; evaluation <= 2; ++evaluation) {
    hide();
    EXPECT_EQ(small.evaluate(tokens, activations, pass).cross_entropy, wanted);
    EXPECT_EQ(order.num_passes(), evaluation);
  }
  hide();
  small.store.zero_gradients();
  EXPECT_EQ(small.train(tokens, activations, pass).cross_entropy, wanted);
}

TEST(LayerOrder, ALayerLeftOutIsRefused) {
  LayerOrder order(3);
  EXPECT_THROW(order.needs(1), InternalError);
  order.needs(0);
  EXPECT_THROW(order.needs(0), InternalError);
  order.needs(1);
  EXPECT_THROW(order.needs(0), InternalError);
  order.needs(2);
  order.needs(0);
  EXPECT_EQ(order.num_passes(), 1);
}

TEST_P(TransformerTest, LogitsAndTokenLossesEqualTheOracles) {
  const ModelCase& c = GetParam();
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch batch(1, 2, 6, c.vocab_size_used);
  const TokenBatch tokens = batch.on(*rank.device);
  Pass pass = pass_over(tokens);
  pass.training = false;  // no dropout
  Activations activations(small.model, batch.num_sequences, batch.length);
  const std::int64_t num_tokens = batch.num_sequences * batch.length;
  const Tensor logits(*rank.device, Purpose::workspace, DType::f32,
                      {num_tokens, small.model.vocab_size()});
  const Tensor token_losses(*rank.device, Purpose::workspace, DType::f32,
                            {batch.num_sequences, batch.length});
  small.model.logits(tokens, activations, pass, logits);
  const LossSums losses = small.evaluate(tokens, activations, pass, token_losses);

  reference_model::Transformer oracle = oracle_of(small.store, c);
  const reference_model::Losses expected =
      oracle.forward(batch.tokens, batch.targets, batch.length);
  EXPECT_LT(
      relative_error(logits->as<float>(), oracle.logits.data.data(), oracle.logits.data.size()),
      f32_tolerance);
  EXPECT_LT(relative_error(token_losses->as<float>(), oracle.token_losses.data(),
                           oracle.token_losses.size()),
            f32_tolerance);
  EXPECT_NEAR(losses.cross_entropy, expected.cross_entropy, f32_tolerance * expected.cross_entropy);
}

// Sequences of padding have no loss, and their tokens are counted by no expert and no statistic.
TEST_P(TransformerTest, PaddingCountsNowhere) {
  const ModelCase& c = GetParam();
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  const auto evaluate = [&](SmallBatch& batch, Activations& activations, std::int64_t num_padding) {
    for (std::int64_t i = (batch.num_sequences - num_padding) * batch.length;
         i < batch.num_sequences * batch.length; ++i)
      batch.targets[static_cast<std::size_t>(i)] = kernels::no_target;
    const TokenBatch tokens = batch.on(*rank.device);
    Pass pass = pass_over(tokens);
    pass.training = false;
    pass.num_padding = num_padding;
    pass.num_global_sequences = 2;
    pass.num_global_tokens = 10;
    activations.clear_loads();
    return small.evaluate(tokens, activations, pass);
  };
  SmallBatch batch(0, 2, 5, c.vocab_size_used), padded(0, 5, 5, c.vocab_size_used);
  Activations of_two(small.model, 2, 5), of_five(small.model, 5, 5);
  const LossSums expected = evaluate(batch, of_two, 0);
  for (int round = 0; round < 2; ++round) {  // what a whole batch left does not matter
    const LossSums actual = evaluate(padded, of_five, 3);
    EXPECT_NEAR(actual.cross_entropy, expected.cross_entropy, 1e-12 * expected.cross_entropy);
    EXPECT_NEAR(actual.balance, expected.balance, 1e-12 * expected.balance);
    EXPECT_NEAR(actual.z, expected.z, 1e-12 * expected.z);
    if (!of_two.loads().empty()) {
      const auto loads = of_five.loads().span<std::int64_t>();
      EXPECT_TRUE(std::ranges::equal(loads, of_two.loads().span<std::int64_t>()));
    }
    if (round == 0) {
      EXPECT_EQ(of_five.max_rows(), of_two.max_rows());
      SmallBatch whole(1, 5, 5, c.vocab_size_used);
      evaluate(whole, of_five, 0);
    }
  }
  const LossSums nothing = evaluate(padded, of_five, 5);
  EXPECT_EQ(nothing.cross_entropy, 0);
  EXPECT_EQ(nothing.balance, 0);
  EXPECT_EQ(nothing.z, 0);
}

// The gradients of micro-batches add up to those of the whole batch, and so do the losses.
TEST_P(TransformerTest, MicroBatchesAccumulateToTheWholeBatch) {
  const ModelCase& c = GetParam();
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch whole(0, 6, 5, c.vocab_size_used);
  Activations all(small.model, 6, 5);
  small.store.zero_gradients();
  const TokenBatch tokens = whole.on(*rank.device);
  const LossSums expected = small.train(tokens, all, pass_over(tokens));
  std::vector<std::vector<double>> gradients;
  for (const Parameter& parameter : small.store.parameters()) {
    const std::span<float> gradient = parameter.gradient().span<float>();
    gradients.emplace_back(gradient.begin(), gradient.end());
  }

  Activations part(small.model, 2, 5);
  small.store.zero_gradients();
  LossSums sums;
  for (std::int64_t first = 0; first < 6; first += 2) {
    SmallBatch micro(first, 2, 5, c.vocab_size_used);
    const TokenBatch micro_tokens = micro.on(*rank.device);
    const LossSums losses = small.train(micro_tokens, part, pass_over(micro_tokens, 1.0 / 3));
    sums = {sums.cross_entropy + losses.cross_entropy, sums.balance + losses.balance,
            sums.z + losses.z};
  }
  EXPECT_NEAR(sums.cross_entropy, expected.cross_entropy, 1e-6 * expected.cross_entropy);
  EXPECT_NEAR(sums.balance, expected.balance, 1e-6 * (1 + expected.balance));
  EXPECT_NEAR(sums.z, expected.z, 1e-6 * (1 + expected.z));
  std::size_t i = 0;
  for (const Parameter& parameter : small.store.parameters()) {
    EXPECT_LT(
        relative_error(parameter.gradient().as<float>(), gradients[i].data(), gradients[i].size()),
        2e-6)
        << parameter.name();
    ++i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, TransformerTest,
    ::testing::Values(mixed_case(), all_experts_case(), dense_case(), tied_case(), dropout_case(),
                      windows_case(), globals_case(), slots_case(), spans_case(), shared_case(),
                      blocks_case(), strided_case(), hierarchical_case(), linformer_case(),
                      gates_case(), lsh_case(), conv_heads_case(),
                      segments_case(SegmentGradient::through), segments_case(SegmentGradient::stop),

                      position_case(PositionKind::none), position_case(PositionKind::absolute),
                      position_case(PositionKind::sinusoidal), position_case(PositionKind::alibi),
                      position_case(PositionKind::relative), position_case(PositionKind::xl),
                      segments_xl_case(), compressed_case(), convolved_case(), mixers_alone_case()),
    [](const auto& instance) { return instance.param.name; });

// The losses of a segment teach the rows of the segments before nothing where the gradient stops,
// not even by rounding, and teach them something where it goes through. Tokens of the first segment
// appear in no other.
TEST(TransformerSegmentsTest, WhereTheGradientStops) {
  for (const SegmentGradient gradient : {SegmentGradient::stop, SegmentGradient::through}) {
    ModelCase c = segments_case(gradient);
    c.experts.every = 0;
    c.model.mixer = {{.kind = MixerKind::segment, .length = 4, .memory = 3, .gradient = gradient}};
    OneRank rank;
    SmallModel small(*rank.device, rank.mesh, c);
    SmallBatch batch(0, 2, 8, c.vocab_size_used);
    for (std::size_t t = 0; t < 16; ++t) {
      batch.tokens[t] = static_cast<std::int32_t>(t % 8);
      if (t % 8 < 4) batch.targets[t] = kernels::no_target;
    }
    const TokenBatch tokens = batch.on(*rank.device);
    Activations activations(small.model, batch.num_sequences, batch.length);
    small.store.zero_gradients();
    small.train(tokens, activations, pass_over(tokens));
    const Parameter& embedding = small.store.parameters().front();
    ASSERT_EQ(embedding.name(), "embedding.weight");
    double of_first = 0, of_second = 0;
    for (std::int64_t i = 0; i < 8 * c.model.hidden; ++i)
      (i < 4 * c.model.hidden ? of_first : of_second) +=
          std::abs(static_cast<double>(embedding.gradient().as<float>()[i]));
    EXPECT_GT(of_second, 0);
    if (gradient == SegmentGradient::stop) {
      EXPECT_EQ(of_first, 0);
    } else {
      EXPECT_GT(of_first, 0);
    }
  }
}

// "strided" of Sparse Transformers: the first token reaches the last through two layers, through
// one it does not.
TEST(TransformerBlocksTest, TwoStridedLayersReachEverything) {
  for (const std::int64_t num_layers : {1, 2}) {
    ModelCase c = strided_case();
    c.experts.every = 0;
    c.model.num_layers = num_layers;
    c.model.mixer = {{.kind = MixerKind::blocks, .pattern = BlockPattern::strided, .stride = 4}};
    OneRank rank;
    SmallModel small(*rank.device, rank.mesh, c);
    Activations activations(small.model, 1, 16);
    double last[2];
    for (const std::int32_t first_token : {1, 2}) {
      SmallBatch batch(0, 1, 16, c.vocab_size_used);
      batch.tokens[0] = first_token;
      const TokenBatch tokens = batch.on(*rank.device);
      const Tensor token_losses(*rank.device, Purpose::workspace, DType::f32, {1, 16});
      small.evaluate(tokens, activations, pass_over(tokens), token_losses);
      last[first_token - 1] = static_cast<double>(token_losses->as<float>()[15]);
    }
    if (num_layers == 1) {
      EXPECT_EQ(last[0], last[1]);
    } else {
      EXPECT_NE(last[0], last[1]);
    }
  }
}

// In bf16 a value is rounded about 12 times in a block (norms, projections, attention, additions,
// activation), its gradient as often on the way back, each time by at most 2^-9 of itself. Errors
// of independent sign add in squares: n roundings give sqrt(n) 2^-9 of a sum of many terms. The
// factor of four allows for sums whose terms partly cancel. Every token takes all experts, so that
// no rounding can change the routing.
TEST(TransformerBf16Test, LossAndGradientsWithinTheRoundingBound) {
  ModelCase c = mixed_case();
  c.experts.top_k = c.experts.num_experts;
  c.model.hidden = 64;
  c.model.initial_std = 0.1;
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c, DType::bf16);
  SmallBatch batch(0, 4, 8, c.vocab_size_used);
  const TokenBatch tokens = batch.on(*rank.device);
  Activations activations(small.model, batch.num_sequences, batch.length);
  small.store.zero_gradients();
  const LossSums losses = small.train(tokens, activations, pass_over(tokens));

  reference_model::Transformer oracle = oracle_of(small.store, c);
  const reference_model::Losses expected =
      oracle.forward(batch.tokens, batch.targets, batch.length);
  oracle.backward();
  const double num_roundings = 24.0 * static_cast<double>(c.model.num_layers);
  const double bound = 4 * std::sqrt(num_roundings) * 0x1p-9;
  EXPECT_NEAR(losses.cross_entropy, expected.cross_entropy, bound * expected.cross_entropy);
  double worst = 0;
  for (const Parameter& parameter : small.store.parameters()) {
    const double error = gradient_error(parameter, oracle.gradients);
    worst = std::max(worst, error);
    EXPECT_LT(error, bound) << parameter.name();
  }
  EXPECT_GT(worst, 1e-4) << "bf16 was not in use";
}

TEST(HeadTest, ChunksKeepTheLogitsWithinTheBound) {
  for (const std::int64_t num_tokens : {5, 256, 300, 8192, 524'288})
    for (const std::int64_t hidden : {8, 512})
      for (const std::int64_t vocab : {17, 8192}) {
        const std::int64_t rows = Head::chunk_rows(num_tokens, hidden, vocab);
        EXPECT_TRUE(rows == num_tokens || rows % 256 == 0) << rows;
        EXPECT_LE(rows, num_tokens);
        const std::int64_t bound = std::min(num_tokens * hidden, std::int64_t{1} << 24);
        EXPECT_LE(rows * vocab, std::max(bound, 256 * vocab));
      }
}

// 600 tokens with a vocabulary that leaves 256 rows to a chunk: three chunks, the last one partial.
TEST(HeadTest, ChunkedGradientsEqualTheOracles) {
  ModelCase c = dense_case();
  c.model.num_layers = 1;
  c.model.hidden = 12;
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch batch(0, 60, 10, c.vocab_size_used);
  ASSERT_EQ(Head::chunk_rows(600, c.model.hidden, c.model.vocab_size), 256);
  const TokenBatch tokens = batch.on(*rank.device);
  Activations activations(small.model, 60, 10);
  small.store.zero_gradients();
  const LossSums losses = small.train(tokens, activations, pass_over(tokens));
  reference_model::Transformer oracle = oracle_of(small.store, c);
  const auto expected = oracle.forward(batch.tokens, batch.targets, batch.length);
  oracle.backward();
  EXPECT_NEAR(losses.cross_entropy, expected.cross_entropy, f32_tolerance * expected.cross_entropy);
  for (const Parameter& parameter : small.store.parameters())
    EXPECT_LT(gradient_error(parameter, oracle.gradients), f32_tolerance) << parameter.name();
}

// Three chunks again. Doubled weights over a doubled sum are exact, and a weight of 0 is no target:
// all bits agree.
TEST(HeadTest, TheLossIsAMeanByWeight) {
  ModelCase c = dense_case();
  c.model.num_layers = 1;
  c.model.hidden = 12;
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  Activations activations(small.model, 60, 10);
  std::vector<float> weights(600, 2.0f);
  Tensor weights_on_device;
  std::vector<std::vector<float>> gradients[2];
  double losses[2] = {}, evaluated[2] = {};
  for (const bool by_weight : {false, true}) {
    SmallBatch batch(0, 60, 10, c.vocab_size_used);
    for (std::size_t t = 0; t < weights.size(); t += 3) {
      if (!by_weight) batch.targets[t] = kernels::no_target;
      weights[t] = 0;
    }
    TokenBatch tokens = batch.on(*rank.device);
    Pass pass = pass_over(tokens);
    pass.num_global_tokens = 400;
    if (by_weight) {
      weights_on_device = tensor_of(*rank.device, weights, {60, 10});
      tokens.weights = weights_on_device;
      pass.num_global_tokens = 600;
      pass.target_weight = 800;
    }
    small.store.zero_gradients();
    losses[by_weight] = small.train(tokens, activations, pass).cross_entropy;
    for (const Parameter& parameter : small.store.parameters()) {
      const std::span<float> gradient = parameter.gradient().span<float>();
      gradients[by_weight].emplace_back(gradient.begin(), gradient.end());
    }
    pass.training = false;
    evaluated[by_weight] = small.evaluate(tokens, activations, pass).cross_entropy;
  }
  EXPECT_GT(losses[0], 0);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(evaluated[0], evaluated[1]);
  EXPECT_EQ(gradients[0], gradients[1]);
}

}  // namespace
}  // namespace switchyard::test
