// Mixers of Hugging Face against ours, from golden files
// (tests/golden/make_mixer_golden.py): outputs, and the gradients of x and of every weight.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "data/hdf5/hdf5.hpp"
#include "kernels/host_copy.hpp"
#include "model/mixers/attention.hpp"
#include "model/mixers/recurrent.hpp"
#include "model/rope_spec.hpp"
#include "tests/model/small_model.hpp"

namespace switchyard::test {
namespace {

// Both sides compute in fp32, in other chunks; norms follow sums of a few hundred terms.
constexpr double tolerance = 2e-5;

class GoldenMixer : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenMixer()
      : file_(hdf5::File::open((std::filesystem::path(GOLDEN_FOLDER) / GetParam()).string())) {
    model_.hidden = number("hidden");
    model_.num_layers = number("layers");
    model_.sequence_length = number("length");
    model_.num_heads = number("heads");
    model_.num_kv_heads = number("kv_heads");
    model_.head_dim = number("value_width");
    model_.norm_epsilon = static_cast<double>(number("epsilon_e9")) * 1e-9;
    model_.position = {
        .kind = choice_of<PositionKind>(file_.string_attribute("/", "position")).value(),
        .buckets = number("buckets"),
        .max_distance = number("max_distance")};
    model_.rope_base = static_cast<double>(number("rope_base"));
    if (number("yarn_factor") > 1)
      model_.rope_scaling = {.kind = kernels::RopeScaling::yarn,
                             .factor = static_cast<double>(number("yarn_factor")),
                             .original_length = number("yarn_length"),
                             .truncate = false};
    model_.qkv_bias = model_.output_bias = number("biases") != 0;
    model_.mixer = {{.kind = choice_of<MixerKind>(file_.string_attribute("/", "kind")).value(),
                     .window = number("window"),
                     .sinks = number("sinks"),
                     .conv = number("conv"),
                     .heads = number("heads"),
                     .groups = number("groups"),
                     .key_width = number("key_width"),
                     .value_width = number("value_width"),
                     .chunk = 8}};
    if (model_.mixer.front().is_attention()) {
      mixer_ = std::make_unique<AttentionMixer>(store_, "mixer", model_, model_.mixer.front(),
                                                DType::f32);
    } else {
      mixer_ =
          std::make_unique<RecurrentMixer>(store_, "mixer", model_, number("layer"), DType::f32);
    }
    store_.allocate();
    for (const Parameter& parameter : store_.parameters())
      kernels::copy_from_host<float>(read(parameter.name().substr(6)), parameter.value());
    store_.zero_gradients();
    mixer_->pack_weights();
  }

  std::int64_t number(const char* key) const { return file_.integer_attribute("/", key); }
  std::vector<float> read(const std::string& name) const {
    return file_.open_dataset(name).read_all<float>();
  }
  void expect_near(const TensorView& actual, const std::string& name) const {
    const std::vector<float> expected = read(name);
    const std::span<float> values = actual.span<float>();
    ASSERT_EQ(values.size(), expected.size()) << name;
    const std::vector<double> wanted(expected.begin(), expected.end());
    EXPECT_LE(relative_error(values.data(), wanted.data(), wanted.size()), tolerance) << name;
  }

  hdf5::File file_;
  OneRank rank_;
  ModelConfig model_;
  ParameterStore store_{*rank_.device, rank_.mesh};
  std::unique_ptr<SequenceMixer> mixer_;
};

TEST_P(GoldenMixer, OutputAndEveryGradientAreThoseOfHuggingFace) {
  const std::int64_t num_sequences = number("sequences"), length = number("length");
  const std::int64_t num_tokens = num_sequences * length;
  const auto rows = [&](const std::string& name) {
    return tensor_of(*rank_.device, read(name), {num_tokens, model_.hidden});
  };
  const Tensor x = rows("x"), dy = rows("dy"), y = rows("x"), dx = rows("x");
  const auto saved = mixer_->make_saved(num_tokens, num_sequences);
  const auto derived = mixer_->make_derived(num_tokens, num_sequences);
  const auto scratch = mixer_->make_scratch(num_sequences, SequenceSplit(length));
  scratch->set_documents({});
  kernels::RopeTable rope;
  if (model_.turns_positions())
    rope =
        kernels::RopeTable(*rank_.device, length, model_.effective_head_dim(), rope_spec(model_));
  std::vector<std::int32_t> positions;
  for (std::int64_t t = 0; t < num_tokens; ++t)
    positions.push_back(static_cast<std::int32_t>(t % length));
  const Tensor rotary = tensor_of(*rank_.device, positions, {num_tokens});
  Pass pass;
  pass.rotary_positions = rotary;
  const LayerContext context{pass, number("layer"), rope, *scratch};
  mixer_->forward(x, y, *saved, *derived, context);
  mixer_->backward(dy, x, dx, *saved, *derived, context);
  expect_near(y, "y");
  expect_near(dx, "d x");
  for (const Parameter& parameter : store_.parameters())
    expect_near(parameter.gradient(), "d " + parameter.name().substr(6));
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenMixer,
                         ::testing::Values("mamba2.h5", "minimax.h5", "qwen3_next.h5", "bloom.h5",
                                           "t5.h5", "gpt_oss.h5", "xlnet.h5"),
                         [](const auto& each) {
                           return each.param.substr(0, each.param.find('.'));
                         });

}  // namespace
}  // namespace switchyard::test
