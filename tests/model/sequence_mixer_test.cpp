// What every kind of mixer owes to the block that holds it (model/sequence_mixer.hpp), whatever it
// computes. A new kind joins the list of kinds() and is held to the same.
#include "model/sequence_mixer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "model/mixers/attention.hpp"
#include "model/mixers/conv_attention.hpp"
#include "model/mixers/latent_attention.hpp"
#include "model/mixers/recurrent.hpp"
#include "model/rope_spec.hpp"
#include "tests/model/small_model.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t num_sequences = 2;
constexpr std::int64_t length = 11;
constexpr std::int64_t num_tokens = num_sequences * length;

struct Kind {
  std::string name;
  std::function<std::unique_ptr<SequenceMixer>(ParameterStore&, const ModelConfig&)> make;
};

std::vector<Kind> kinds() {
  const auto attention = [](const MixerConfig& config) {
    return [config](ParameterStore& store, ModelConfig model) {
      model.mixer = {config};
      return std::make_unique<AttentionMixer>(store, "mixer", model, config, DType::f32);
    };
  };
  const auto changed = [](QkNorm norm, bool bias) {
    return [norm, bias](ParameterStore& store, const ModelConfig& model) {
      ModelConfig own = model;
      own.qk_norm = norm;
      own.qkv_bias = own.output_bias = bias;
      return std::make_unique<AttentionMixer>(store, "mixer", own,
                                              MixerConfig{.conv = bias ? 3 : 0}, DType::f32);
    };
  };
  const auto relative = [](ParameterStore& store, const ModelConfig& model) {
    ModelConfig own = model;
    own.position = {.kind = PositionKind::relative, .buckets = 4, .max_distance = 6};
    return std::make_unique<AttentionMixer>(
        store, "mixer", own, MixerConfig{.kind = MixerKind::window, .window = 9}, DType::f32);
  };
  const auto xl = [](ParameterStore& store, const ModelConfig& model) {
    ModelConfig own = model;
    own.position.kind = PositionKind::xl;
    return std::make_unique<AttentionMixer>(store, "mixer", own, MixerConfig{.sinks = 1},
                                            DType::f32);
  };
  const auto strided = [](ParameterStore& store, const ModelConfig& model) {
    ModelConfig own = model;
    own.num_kv_heads = 2;
    own.mixer = {{.kind = MixerKind::blocks, .pattern = BlockPattern::strided, .stride = 3}};
    return std::make_unique<AttentionMixer>(store, "mixer", own, own.mixer.front(), DType::f32);
  };
  const auto compressed = [](ParameterStore& store, const ModelConfig& model) {
    ModelConfig own = model;
    own.position.kind = PositionKind::none;
    own.mixer = {{.kind = MixerKind::segment,
                  .sinks = 1,
                  .length = 2,
                  .memory = 2,
                  .compressed = 2,
                  .ratio = 2}};
    return std::make_unique<AttentionMixer>(store, "mixer", own, own.mixer.front(), DType::f32);
  };
  const auto lsh = [](ParameterStore& store, const ModelConfig& model) {
    ModelConfig own = model;
    own.num_kv_heads = own.num_heads;
    own.mixer = {{.kind = MixerKind::lsh, .window = 2, .buckets = 4, .rounds = 2, .conv = 2}};
    return std::make_unique<AttentionMixer>(store, "mixer", own, own.mixer.front(), DType::f32);
  };
  const auto latent = [](std::int64_t q_rank) {
    return [q_rank](ParameterStore& store, const ModelConfig& model) {
      ModelConfig own = model;
      own.num_kv_heads = own.num_heads;
      own.latent = {.kv_rank = 9,
                    .q_rank = q_rank,
                    .nope_dim = 4,
                    .rope_dim = model.effective_head_dim(),
                    .value_dim = 5};
      return std::make_unique<LatentAttentionMixer>(store, "mixer", own, DType::f32);
    };
  };
  std::vector<Kind> all = {
      {"attention", attention({})},
      {"latent", latent(7)},
      {"latent_without_query_rank", latent(0)},
      {"head_norm_biases_and_convolution", changed(QkNorm::head, true)},
      {"whole_norm", changed(QkNorm::whole, false)},
      {"window", attention({.kind = MixerKind::window, .window = 3, .sinks = 2})},
      {"globals", attention({.kind = MixerKind::window, .window = 3, .globals = 2, .sinks = 1})},
      {"slots", attention({.sinks = 1, .slots = 5})},
      {"bigbird", attention({.kind = MixerKind::blocks,
                             .block = 2,
                             .window_blocks = 1,
                             .global_blocks = 1,
                             .random_blocks = 2})},
      {"fixed", attention({.kind = MixerKind::blocks,
                           .sinks = 1,
                           .pattern = BlockPattern::fixed,
                           .stride = 4,
                           .summary = 2})},
      {"strided", strided},
      {"conv_heads",
       [](ParameterStore& store, const ModelConfig& model) {
         return std::make_unique<ConvAttentionMixer>(
             store, "mixer", model,
             MixerConfig{.kind = MixerKind::conv_attention, .conv_heads = 2, .width = 4},
             DType::f32);
       }},
      {"lsh", lsh},
      {"hierarchical", attention({.kind = MixerKind::hierarchical,
                                  .sinks = 1,
                                  .block = 2,
                                  .window_blocks = 1,
                                  .selected = 2,
                                  .summaries = BlockSummary::mean})},
      {"gated_branches", attention({.kind = MixerKind::hierarchical,
                                    .block = 2,
                                    .window_blocks = 1,
                                    .selected = 2,
                                    .summaries = BlockSummary::mean,
                                    .combine = BranchCombination::gates,
                                    .conv = 2})},
      {"linear_summaries", attention({.kind = MixerKind::hierarchical,
                                      .block = 2,
                                      .window_blocks = 2,
                                      .summary = 3,
                                      .selected = 1,
                                      .summaries = BlockSummary::linear})},
      {"summaries", attention({.kind = MixerKind::hierarchical,
                               .block = 3,
                               .window_blocks = 1,
                               .summaries = BlockSummary::mean})},
      {"segment", attention({.kind = MixerKind::segment, .length = 4, .memory = 3, .conv = 2})},
      {"compressed", compressed},
      {"span", attention({.kind = MixerKind::window, .window = 7, .ramp = 3})},
      {"convolved", attention({.conv = 4})},
      {"relative", relative},
      {"xl", xl}};
  for (const MixerConfig& config : recurrent_mixers())
    all.push_back({title_of(config), [config](ParameterStore& store, ModelConfig model) {
                     model.mixer = {config};
                     return std::make_unique<RecurrentMixer>(store, "mixer", model, 0, DType::f32);
                   }});
  return all;
}

using Bytes = std::vector<std::byte>;
Bytes bytes_of(const TensorView& view) {
  return {view.data, view.data + view.num_bytes()};
}

std::vector<Bytes> contents_of(MixerRecord& record) {
  std::vector<Bytes> contents;
  record.for_each_tensor(
      [&](const RecordTensor& part) { contents.push_back(bytes_of(part.used())); });
  return contents;
}

class SequenceMixerTest : public ::testing::TestWithParam<Kind> {
 protected:
  SequenceMixerTest() : model_(mixed_case().model), mixer_(GetParam().make(store_, model_)) {
    store_.allocate();
    store_.initialize(5);
    vary_zeros();
    mixer_->pack_weights();
    const std::int64_t before = rank_.device->memory().live(Purpose::activation);
    saved_ = mixer_->make_saved(num_tokens, num_sequences);
    derived_ = mixer_->make_derived(num_tokens, num_sequences);
    bytes_of_records_ = rank_.device->memory().live(Purpose::activation) - before;
    scratch_ = mixer_->make_scratch(num_sequences, SequenceSplit(length));
    scratch_->set_documents({});
    rope_ =
        kernels::RopeTable(*rank_.device, length, model_.effective_head_dim(), rope_spec(model_));
    x_ = rows(num_tokens);
    y_ = rows(num_tokens);
    for (std::int64_t row = 0; row < num_tokens; ++row) change(row, 0);
    std::vector<std::int32_t> positions;
    for (std::int64_t t = 0; t < num_tokens; ++t)
      positions.push_back(static_cast<std::int32_t>(t % length));
    pass_.sequence_length = length;
    sequence_ids_ = tensor_of(*rank_.device, std::vector<std::int64_t>{0, 1}, {num_sequences});
    positions_ = tensor_of(*rank_.device, positions, {num_tokens});
    pass_.sequence_ids = sequence_ids_;
    pass_.positions = pass_.rotary_positions = positions_;
  }

  // What starts at zero would do nothing.
  void vary_zeros() {
    for (const Parameter& parameter : store_.parameters())
      if (parameter.spec().initial == Initial::zeros)
        for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
          parameter.value().as<float>()[i] =
              static_cast<float>(std::sin(static_cast<double>(3 * i + 1)));
  }
  Tensor rows(std::int64_t count) const {
    return {*rank_.device, Purpose::workspace, DType::f32, {count, model_.hidden}};
  }
  // Row of x: made-up values, other ones for each `variant`.
  void change(std::int64_t row, int variant) const {
    float* const x = x_->as<float>() + row * model_.hidden;
    for (std::int64_t i = 0; i < model_.hidden; ++i)
      x[i] = static_cast<float>(std::sin(static_cast<double>(37 * row + 11 * i + 5 * variant)));
  }
  LayerContext context() const { return {pass_, 0, rope_, *scratch_}; }
  std::vector<Bytes> forward() const {
    mixer_->forward(x_, y_, *saved_, *derived_, context());
    std::vector<Bytes> by_row;
    for (std::int64_t row = 0; row < num_tokens; ++row)
      by_row.push_back(bytes_of(y_->slice_rows(row, row + 1)));
    return by_row;
  }

  OneRank rank_;
  ModelConfig model_;
  ParameterStore store_{*rank_.device, rank_.mesh};
  std::unique_ptr<SequenceMixer> mixer_;
  std::unique_ptr<MixerRecord> saved_, derived_;
  std::unique_ptr<MixerScratch> scratch_;
  std::int64_t bytes_of_records_ = 0;
  kernels::RopeTable rope_;
  Tensor sequence_ids_, positions_;
  Pass pass_;
  Tensor x_, y_;
};

TEST_P(SequenceMixerTest, RecordsNameAllTheirTensors) {
  std::int64_t named = 0;
  for (MixerRecord* record : {saved_.get(), derived_.get()})
    record->for_each_tensor([&](const RecordTensor& part) {
      named += MemoryLedger::rounded((*part.tensor)->num_bytes());
    });
  EXPECT_EQ(named, bytes_of_records_);
}

TEST_P(SequenceMixerTest, RebuildGivesTheBitsOfForward) {
  const std::vector<Bytes> expected_y = forward();
  const std::vector<Bytes> saved = contents_of(*saved_), derived = contents_of(*derived_);
  derived_->for_each_tensor([](const RecordTensor& part) {
    std::memset(part.used().data, 0x7f, static_cast<std::size_t>(part.used().num_bytes()));
  });
  std::memset(y_->data, 0x7f, static_cast<std::size_t>(y_->num_bytes()));
  mixer_->rebuild(x_, y_, *saved_, *derived_, context());
  EXPECT_EQ(contents_of(*derived_), derived);
  EXPECT_EQ(contents_of(*saved_), saved);
  for (std::int64_t row = 0; row < num_tokens; ++row)
    EXPECT_EQ(bytes_of(y_->slice_rows(row, row + 1)), expected_y[static_cast<std::size_t>(row)]);
}

TEST_P(SequenceMixerTest, NoTokenLearnsOfALaterOneOrOfAnotherSequence) {
  const std::vector<Bytes> expected = forward();
  for (const std::int64_t changed : {std::int64_t{0}, std::int64_t{4}, length - 1}) {
    change(changed, 1);
    const std::vector<Bytes> actual = forward();
    for (std::int64_t row = 0; row < num_tokens; ++row) {
      const auto at = static_cast<std::size_t>(row);
      if (row < changed || row >= length) {
        EXPECT_EQ(actual[at], expected[at]) << row << " after a change of " << changed;
      } else if (row == changed) {
        EXPECT_NE(actual[at], expected[at]) << row;
      }
    }
    change(changed, 0);
  }
}

TEST_P(SequenceMixerTest, NoTokenLearnsOfAnotherDocument) {
  const std::vector<std::vector<std::int32_t>> starts = {{4, 9}, {}};
  const std::vector<Bytes> one_document = forward();
  scratch_->set_documents(starts);
  const std::vector<Bytes> expected = forward();
  EXPECT_NE(expected[4], one_document[4]);
  EXPECT_EQ(expected[static_cast<std::size_t>(length) + 4],
            one_document[static_cast<std::size_t>(length) + 4]);
  for (std::int64_t row = 0; row < 4; ++row) change(row, 1);
  const std::vector<Bytes> actual = forward();
  for (std::size_t row = 4; row < static_cast<std::size_t>(num_tokens); ++row)
    EXPECT_EQ(actual[row], expected[row]) << row;
}

// In uneven pieces. 1e-5 relative to the largest value: sums are cut into other blocks.
TEST_P(SequenceMixerTest, ExtendingASequenceGivesTheTrainingForward) {
  forward();
  double largest = 0;
  for (const float value : y_->span<float>()) largest = std::max(largest, std::abs(double{value}));
  const std::unique_ptr<MixerCache> cache = mixer_->make_cache(length, 4);
  for (int round = 0; round < 2; ++round) {  // a cleared cache remembers nothing
    std::int64_t at = 0;
    for (const std::int64_t count : {4, 1, 3, 1, 2}) {
      const auto scratch = mixer_->make_extend_scratch(count, length);
      Pass pass;
      pass.training = false;
      pass.sequence_length = count;
      pass.positions = pass.rotary_positions = pass_.positions.slice_rows(at, at + count);
      const Tensor y = rows(count);
      mixer_->extend(x_->slice_rows(at, at + count), y, at, *cache, {pass, 0, rope_, *scratch});
      for (std::int64_t i = 0; i < y->numel(); ++i)
        ASSERT_NEAR(y->as<float>()[i], y_->as<float>()[at * model_.hidden + i], 1e-5 * largest)
            << "position " << at + i / model_.hidden;
      at += count;
    }
    ASSERT_EQ(at, length);
    cache->clear();
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, SequenceMixerTest, ::testing::ValuesIn(kinds()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace switchyard::test
