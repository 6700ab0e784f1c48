// The oracle against finite differences of its own loss, in double: a sample of every parameter.
#include <gtest/gtest.h>

#include "tests/model/small_model.hpp"

namespace switchyard::test {
namespace {

class ReferenceTransformerTest : public ::testing::TestWithParam<ModelCase> {};

TEST_P(ReferenceTransformerTest, GradientsAreFiniteDifferences) {
  const ModelCase& c = GetParam();
  OneRank rank;
  const SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch batch(0, 2, 5, c.vocab_size_used);
  const Pass pass = pass_over(batch.on(*rank.device));
  const auto masks = masks_of(*rank.device, pass, c.model.hidden);

  reference_model::Transformer oracle = oracle_of(small.store, c);
  const auto loss = [&] {
    return oracle.total(oracle.forward(batch.tokens, batch.targets, batch.length, masks));
  };
  loss();
  oracle.backward();
  constexpr double step = 1e-5;
  for (auto& [name, values] : oracle.values) {
    for (std::size_t sample = 0; sample < 6; ++sample) {
      const std::size_t i = (sample * 7919 + 13) % values.size();
      const double value = values[i];
      values[i] = value + step;
      const double above = loss();
      values[i] = value - step;
      const double below = loss();
      values[i] = value;
      // The difference quotient errs by step^2 times the third derivative, and by rounding / step.
      EXPECT_NEAR((above - below) / (2 * step), oracle.gradients.at(name)[i], 1e-8)
          << name << " element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, ReferenceTransformerTest,
    ::testing::Values(mixed_case(), all_experts_case(), dense_case(), tied_case(), dropout_case(),
                      windows_case(), globals_case(), slots_case(), spans_case(), shared_case(),
                      blocks_case(), strided_case(), hierarchical_case(), linformer_case(),
                      gates_case(), lsh_case(), conv_heads_case(),
                      segments_case(SegmentGradient::through), position_case(PositionKind::none),
                      position_case(PositionKind::absolute),
                      position_case(PositionKind::sinusoidal), position_case(PositionKind::alibi),
                      position_case(PositionKind::relative), position_case(PositionKind::xl),
                      convolved_case(), mixers_alone_case()),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace switchyard::test
