// Generation with a key-value cache gives the logits of the full forward pass at every position.
#include "model/decoder.hpp"

#include <gtest/gtest.h>

#include "tensor/error.hpp"
#include "tests/model/small_model.hpp"

namespace switchyard::test {
namespace {

class DecoderTest : public ::testing::TestWithParam<ModelCase> {
 protected:
  // Logits [length, V] of the full forward pass over one sequence, as doubles.
  std::vector<double> full_logits(SmallModel& small, SmallBatch& batch) {
    const TokenBatch tokens = batch.on(*rank_.device);
    Pass pass = pass_over(tokens);
    pass.training = false;
    Activations activations(small.model, 1, batch.length);
    const Tensor logits(*rank_.device, Purpose::workspace, DType::f32,
                        {batch.length, small.model.vocab_size()});
    small.model.logits(tokens, activations, pass, logits);
    const std::span<float> values = logits->span<float>();
    return {values.begin(), values.end()};
  }

  OneRank rank_;
};

TEST_P(DecoderTest, CachedLogitsEqualTheFullForward) {
  const ModelCase& c = GetParam();
  SmallModel small(*rank_.device, rank_.mesh, c);
  SmallBatch batch(5, 1, 14, c.vocab_size_used);
  const std::vector<double> expected = full_logits(small, batch);
  Decoder decoder(small.model, batch.length);
  const std::span<const std::int32_t> tokens = batch.tokens;
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::size_t at = 0;
    for (const std::size_t count : {5u, 1u, 1u, 3u, 1u, 1u, 1u, 1u}) {
      const std::span<const float> logits = decoder.append(tokens.subspan(at, count));
      at += count;
      ASSERT_EQ(logits.size(), static_cast<std::size_t>(c.vocab_size_used));
      const double* full = &expected[(at - 1) * static_cast<std::size_t>(c.model.vocab_size)];
      EXPECT_LT(relative_error(logits.data(), full, logits.size()), 1e-5) << "position " << at - 1;
    }
    EXPECT_EQ(decoder.length(), batch.length);
    decoder.clear();
  }
}

TEST_P(DecoderTest, LongPromptsGoThroughInChunks) {
  const ModelCase& c = GetParam();
  SmallModel small(*rank_.device, rank_.mesh, c);
  SmallBatch batch(2, 1, 530, c.vocab_size_used);
  const std::vector<double> expected = full_logits(small, batch);
  Decoder decoder(small.model, 600);
  const std::span<const float> logits = decoder.append(batch.tokens);
  const double* full = &expected[529 * static_cast<std::size_t>(c.model.vocab_size)];
  EXPECT_LT(relative_error(logits.data(), full, logits.size()), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Cases, DecoderTest,
                         ::testing::Values(mixed_case(), all_experts_case(), dense_case(),
                                           tied_case(), dropout_case(), windows_case()),
                         [](const auto& instance) { return instance.param.name; });

TEST(DecoderLengthTest, MoreTokensThanFitAreRefused) {
  OneRank rank;
  const ModelCase c = dense_case();
  SmallModel small(*rank.device, rank.mesh, c);
  Decoder decoder(small.model, 3);
  const std::vector<std::int32_t> tokens = {1, 2, 3, 4};
  EXPECT_THROW(decoder.append(tokens), InternalError);
  EXPECT_THROW(decoder.append({}), InternalError);
}

}  // namespace
}  // namespace switchyard::test
