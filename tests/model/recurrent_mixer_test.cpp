// Recurrent mixers against their formulas in double: outputs, and the gradients of x and of every
// parameter against differences.
#include "model/mixers/recurrent.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "model/rope_spec.hpp"
#include "tests/model/small_model.hpp"
#include "tests/support/reference_recurrent_mixer.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t num_sequences = 2, length = 11, num_tokens = num_sequences * length;
constexpr std::int64_t layer = 1;  // decays of lightning attention differ by layer

// fp32 sums of some hundred terms, relative to the norm of all.
constexpr double tolerance = 1e-5;

using Doubles = std::vector<double>;

Doubles doubles_of(const TensorView& view) {
  const std::span<float> values = view.span<float>();
  return {values.begin(), values.end()};
}

double error_of(const Doubles& actual, const Doubles& expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(actual[i] - expected[i], 2);
    norm += std::pow(expected[i], 2);
  }
  return std::sqrt(difference / norm);
}

struct Case {
  MixerConfig mixer;
  PositionKind position = PositionKind::rope;
  bool documents = false;
};

class RecurrentMixerTest : public ::testing::TestWithParam<Case> {
 protected:
  RecurrentMixerTest()
      : model_(model_of(GetParam())), mixer_(store_, "mixer", model_, layer, DType::f32) {
    store_.allocate();
    store_.initialize(5);
    mixer_.pack_weights();
    if (model_.turns_positions())
      rope_ =
          kernels::RopeTable(*rank_.device, length, model_.effective_head_dim(), rope_spec(model_));
    saved_ = mixer_.make_saved(num_tokens, num_sequences);
    derived_ = mixer_.make_derived(num_tokens, num_sequences);
    scratch_ = mixer_.make_scratch(num_sequences, SequenceSplit(length));
    if (GetParam().documents) starts_ = {{3, 4, 9}, {}};
    scratch_->set_documents(starts_);
    std::vector<std::int32_t> positions;
    for (std::int64_t t = 0; t < num_tokens; ++t)
      positions.push_back(static_cast<std::int32_t>(t % length));
    positions_ = tensor_of(*rank_.device, positions, {num_tokens});
    pass_.sequence_length = length;
    pass_.positions = pass_.rotary_positions = positions_;
    x_ = made_up(11);
    dy_ = made_up(7);
  }

  static ModelConfig model_of(const Case& c) {
    ModelConfig model = mixed_case().model;
    model.num_layers = 3;
    model.mixer = {c.mixer};
    model.position.kind = c.position;
    model.norm_epsilon = 1e-3;
    return model;
  }
  Tensor made_up(int factor) const {
    std::vector<float> values;
    for (std::int64_t i = 0; i < num_tokens * model_.hidden; ++i)
      values.push_back(
          static_cast<float>(std::sin(static_cast<double>(i * i % 1009 + factor * i))));
    return tensor_of(*rank_.device, values, {num_tokens, model_.hidden});
  }
  LayerContext context() const { return {pass_, layer, rope_, *scratch_}; }

  Doubles expected_y(const Doubles& x, const std::map<std::string, Doubles>& values) {
    for (const auto& [name, value] : values) reference_.values[name.substr(6)] = value;
    Doubles y;
    const auto hidden = static_cast<std::size_t>(model_.hidden);
    for (std::size_t s = 0; s < num_sequences; ++s) {
      reference_.begins.assign(length, false);
      if (!starts_.empty())
        for (const std::int32_t start : starts_[s])
          reference_.begins[static_cast<std::size_t>(start)] = true;
      reference_model::RecurrentMixer::Rows rows;
      for (std::size_t t = 0; t < length; ++t) {
        const auto begin = x.begin() + static_cast<std::ptrdiff_t>((s * length + t) * hidden);
        rows.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(hidden));
      }
      for (const Doubles& row : reference_.forward(rows)) y.insert(y.end(), row.begin(), row.end());
    }
    return y;
  }
  std::map<std::string, Doubles> values() const {
    std::map<std::string, Doubles> all;
    for (const Parameter& parameter : store_.parameters())
      all[parameter.name()] = doubles_of(parameter.value());
    return all;
  }

  OneRank rank_;
  ModelConfig model_;
  reference_model::RecurrentMixer reference_{model_, layer};
  ParameterStore store_{*rank_.device, rank_.mesh};
  RecurrentMixer mixer_;
  kernels::RopeTable rope_;
  std::unique_ptr<MixerRecord> saved_, derived_;
  std::unique_ptr<MixerScratch> scratch_;
  std::vector<std::vector<std::int32_t>> starts_;
  Tensor positions_, x_, dy_;
  Pass pass_;
};

TEST_P(RecurrentMixerTest, ForwardAndEveryGradientAreThoseOfTheFormulas) {
  const auto rows = [&] {
    return Tensor(*rank_.device, Purpose::workspace, DType::f32, {num_tokens, model_.hidden});
  };
  const Tensor y = rows(), dx = rows();
  store_.zero_gradients();
  mixer_.forward(x_, y, *saved_, *derived_, context());
  mixer_.backward(dy_, x_, dx, *saved_, *derived_, context());

  const Doubles x = doubles_of(x_), dy = doubles_of(dy_);
  const std::map<std::string, Doubles> parameters = values();
  EXPECT_LT(error_of(doubles_of(y), expected_y(x, parameters)), tolerance);
  const auto loss = [&](const Doubles& at, const std::map<std::string, Doubles>& with) {
    const Doubles out = expected_y(at, with);
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * dy[i];
    return sum;
  };
  constexpr double step = 1e-5;
  const auto difference = [&](auto&& loss_at) {
    return (loss_at(step) - loss_at(-step)) / (2 * step);
  };
  Doubles wanted;
  Doubles actual_dx;
  const Doubles all_dx = doubles_of(dx);
  for (std::size_t i = 0; i < x.size(); i += 3) {
    wanted.push_back(difference([&](double by) {
      Doubles moved = x;
      moved[i] += by;
      return loss(moved, parameters);
    }));
    actual_dx.push_back(all_dx[i]);
  }
  EXPECT_LT(error_of(actual_dx, wanted), tolerance) << "x";
  for (const Parameter& parameter : store_.parameters()) {
    wanted.clear();
    std::map<std::string, Doubles> moved = parameters;
    Doubles& value = moved.at(parameter.name());
    const std::size_t stride = value.size() > 100 ? 13 : 1;  // of large ones some
    const Doubles all = doubles_of(parameter.gradient());
    Doubles actual;
    for (std::size_t i = 0; i < value.size(); i += stride) {
      const double before = value[i];
      wanted.push_back(difference([&](double by) {
        value[i] = before + by;
        return loss(x, moved);
      }));
      value[i] = before;
      actual.push_back(all[i]);
    }
    EXPECT_LT(error_of(actual, wanted), tolerance) << parameter.name();
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const MixerConfig& mixer : recurrent_mixers()) {
    all.push_back({.mixer = mixer});
    all.push_back({.mixer = mixer, .position = PositionKind::none, .documents = true});
    if (mixer.conv == 0) continue;
    all.push_back({.mixer = mixer});
    all.back().mixer.conv = 0;
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Kinds, RecurrentMixerTest, ::testing::ValuesIn(cases()),
                         [](const auto& each) {
                           const Case& c = each.param;
                           const char* what = c.documents         ? "_documents"
                                              : c.mixer.conv == 0 ? "_plain"
                                                                  : "";
                           return title_of(c.mixer) + what;
                         });

}  // namespace
}  // namespace switchyard::test
