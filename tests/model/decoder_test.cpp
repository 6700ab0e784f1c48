// Generation with a key-value cache gives the logits of the full forward pass at every position.
#include "model/decoder.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "model/mixers/attention.hpp"
#include "model/rope_spec.hpp"
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

// Layers of one kind share scratch, whatever their patterns.
ModelCase several_patterns_case() {
  ModelCase c = mixed_case();
  c.name = "several_patterns";
  c.model.num_layers = 5;
  c.model.num_kv_heads = 2;
  c.model.mixer = {{},
                   {.kind = MixerKind::window, .window = 2, .globals = 2},
                   {.kind = MixerKind::blocks, .block = 2, .window_blocks = 1, .random_blocks = 2},
                   {.kind = MixerKind::blocks, .pattern = BlockPattern::strided, .stride = 3},
                   {.kind = MixerKind::hierarchical,
                    .block = 2,
                    .window_blocks = 1,
                    .summaries = BlockSummary::mean}};
  return c;
}

// Recurrent layers between such with attention.
std::vector<ModelCase> hybrid_cases() {
  std::vector<ModelCase> cases;
  for (const MixerConfig& mixer : recurrent_mixers()) cases.push_back(hybrid_case(mixer));
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Hybrids, DecoderTest, ::testing::ValuesIn(hybrid_cases()),
                         [](const auto& instance) { return instance.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Cases, DecoderTest,
    ::testing::Values(several_patterns_case(), mixed_case(), all_experts_case(), dense_case(),
                      tied_case(), dropout_case(), windows_case(), globals_case(), slots_case(),
                      spans_case(), shared_case(), blocks_case(), strided_case(),
                      hierarchical_case(), linformer_case(), gates_case(), lsh_case(),
                      conv_heads_case(), segments_case(SegmentGradient::through),
                      segments_case(SegmentGradient::stop),

                      position_case(PositionKind::none), position_case(PositionKind::absolute),
                      position_case(PositionKind::sinusoidal), position_case(PositionKind::alibi),
                      position_case(PositionKind::relative), position_case(PositionKind::xl),
                      segments_xl_case(), compressed_case(), convolved_case(), mixers_alone_case()),
    [](const auto& instance) { return instance.param.name; });

// Windows only, with sinks and stretched positions, in a model whose sequence_length is short.
ModelCase windows_only_case() {
  ModelCase c = windows_case();
  c.model.sequence_length = 96;
  c.model.mixer = {{.kind = MixerKind::window, .window = 3, .sinks = 2},
                   {.kind = MixerKind::window, .window = 70, .sinks = 1}};
  return c;
}

TEST(DecoderLengthTest, WindowsGoOnBeyondTheSequenceLengthInBoundedMemory) {
  constexpr std::int64_t length = 1700;  // the cache of 70 + 512 rows makes room several times
  const ModelCase c = windows_only_case();
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, c);
  SmallBatch batch(5, 1, length, c.vocab_size_used);
  ModelCase longer = c;  // the same weights
  longer.model.sequence_length = length;
  SmallModel reference(*rank.device, rank.mesh, longer);
  const TokenBatch tokens = batch.on(*rank.device);
  Pass pass = pass_over(tokens);
  pass.training = false;
  Activations activations(reference.model, 1, length);
  const Tensor logits(*rank.device, Purpose::workspace, DType::f32, {length, c.model.vocab_size});
  reference.model.logits(tokens, activations, pass, logits);
  const std::span<float> values = logits->span<float>();
  const std::vector<double> expected(values.begin(), values.end());

  const std::int64_t before = rank.device->memory().live(Purpose::activation);
  Decoder decoder(small.model, 1 << 20);
  const std::int64_t rows = 3 + 70 + 2 * 512;
  const std::int64_t row_bytes = 2 * c.model.num_kv_heads * c.model.head_dim * 4;
  EXPECT_LT(rank.device->memory().live(Purpose::activation) - before, rows * row_bytes + 1024);
  const std::span<const std::int32_t> ids = batch.tokens;
  for (int repeat = 0; repeat < 2; ++repeat, decoder.clear()) {
    for (std::size_t at = 0; at < ids.size();) {
      const std::size_t count = at == 0 ? 400 : 1;
      const std::span<const float> actual = decoder.append(ids.subspan(at, count));
      at += count;
      const double* full = &expected[(at - 1) * static_cast<std::size_t>(c.model.vocab_size)];
      ASSERT_LT(relative_error(actual.data(), full, actual.size()), 1e-5) << "position " << at - 1;
    }
  }
}

// Rows [num, hidden] of numbers between -1 and 1.
Tensor made_up_rows(Device& device, DType type, std::int64_t num, std::int64_t hidden,
                    std::int64_t first) {
  std::vector<float> values(static_cast<std::size_t>(num * hidden));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(static_cast<float>(i * i % 1009) + static_cast<float>(first));
  Tensor rows(device, Purpose::workspace, type, {num, hidden});
  kernels::copy(tensor_of(device, values, {num, hidden}), rows);
  return rows;
}

// What a window no longer shows leaves no trace: the same bits as with a cache that keeps all.
TEST(AttentionCacheTest, MakingRoomKeepsTheBits) {
  for (const DType compute : {DType::f32, DType::bf16})
    for (const kernels::KeyPattern& pattern :
         {kernels::KeyPattern(1), kernels::KeyPattern(70), kernels::KeyPattern(300),
          kernels::KeyPattern(70, 3), kernels::KeyPattern(40, 270)}) {
      constexpr std::int64_t length = 1500;
      OneRank rank;
      Device& device = *rank.device;
      const ModelConfig model = windows_only_case().model;
      const MixerConfig attention{.kind = MixerKind::window,
                                  .window = pattern.window,
                                  .globals = pattern.globals,
                                  .sinks = 0};
      ParameterStore store(device, rank.mesh);
      AttentionMixer layer(store, "attention", model, attention, compute);
      store.allocate();
      store.initialize(3);
      layer.pack_weights();
      const kernels::RopeTable rope(device, length, model.effective_head_dim(), rope_spec(model));
      AttentionMixer::Cache bounded(device, model, pattern, 0, compute, length, 256);
      AttentionMixer::Cache whole(device, model, 0, 0, compute, length, 256);
      for (std::int64_t at = 0; at < length;) {
        const std::int64_t count = at < 256 ? 256 - at : 1 + at % 40;
        const std::int64_t num = std::min(count, length - at);
        AttentionMixer::ExtendScratch scratch(device, model, {&pattern, 1}, 0, compute, num, length,
                                              model.query_cols() + 2 * model.key_cols(),
                                              std::nullopt);
        const Tensor x = made_up_rows(device, compute, num, model.hidden, at);
        Tensor y[2];
        std::vector<std::int32_t> positions(static_cast<std::size_t>(num));
        std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(at));
        Pass pass;
        const Tensor numbers = tensor_of(device, positions, {num});
        pass.rotary_positions = numbers;
        for (const bool keeps_all : {false, true}) {
          Tensor& out = y[keeps_all];
          out = Tensor(device, Purpose::workspace, compute, {num, model.hidden});
          layer.extend(x, out, at, keeps_all ? whole : bounded, {pass, 0, rope, scratch});
        }
        ASSERT_EQ(std::memcmp(y[0]->data, y[1]->data, static_cast<std::size_t>(y[0]->num_bytes())),
                  0)
            << name_of(compute) << ", window " << pattern.window << ", globals " << pattern.globals
            << ", position " << at;
        at += num;
      }
      EXPECT_GE(bounded.num_gone(), 512);
      EXPECT_EQ(whole.num_gone(), 0);
      EXPECT_EQ(bounded.keys()->rows(), pattern.window + pattern.globals + 512);
    }
}

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
