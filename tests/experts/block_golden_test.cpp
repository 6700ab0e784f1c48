// Mixture-of-experts blocks and routers of Hugging Face against ours, from golden files
// (tests/golden/make_block_golden.py): outputs and all gradients.
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "data/hdf5/hdf5.hpp"
#include "experts/moe_layer.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/reference_moe.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

// Both sides compute in fp32, in another order of their sums of up to 24 terms.
constexpr double tolerance = 1e-5;

class GoldenBlock : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenBlock()
      : file_(hdf5::File::open(std::string(GOLDEN_FOLDER) + "/" + GetParam())),
        device_(make_tested_device()),
        mesh_(world(), {}),
        store_(*device_, mesh_) {
    config_.num_experts = number("num_experts");
    config_.top_k = number("top_k");
    config_.intermediate = number("intermediate");
    config_.normalize_top_k = number("normalize") != 0;
    config_.balance_weight = config_.z_weight = 0;
    config_.bias_rate = number("has_bias") != 0 ? 0.001 : 0;
    config_.router.score = choice_of<RouterScore>(word("score")).value();
    config_.router.softmax_over = choice_of<SoftmaxOver>(word("softmax_over")).value();
    config_.router.scale = static_cast<double>(number("scale_percent")) / 100;
    config_.router.groups = number("groups");
    config_.router.top_groups = number("top_groups");
    config_.router.group_score = choice_of<kernels::GroupScore>(word("group_score")).value();
    if (number("shared") > 0)
      config_.shared = {
          .number = 1,
          .intermediate = number("shared"),
          .gate = number("shared_gate") != 0 ? SharedGate::sigmoid : SharedGate::none};
    x_ = tensor_of("x");
    num_tokens_ = x_->rows();
    dx_ = Tensor(*device_, Purpose::activation, DType::f32, {num_tokens_, hidden()});
    kernels::fill_zero(dx_);
    ids_ = Tensor(*device_, Purpose::activation, DType::i64, {1});
    positions_ = Tensor(*device_, Purpose::activation, DType::i32, {num_tokens_});
    ids_->as<std::int64_t>()[0] = 0;
    std::iota(positions_->as<std::int32_t>(), positions_->as<std::int32_t>() + num_tokens_, 0);
    pass_.sequence_length = num_tokens_;
    pass_.sequence_ids = ids_;
    pass_.positions = positions_;
    pass_.num_global_tokens = static_cast<double>(num_tokens_);
  }

  std::int64_t number(const char* key) const { return file_.integer_attribute("/", key); }
  std::string word(const char* key) const { return file_.string_attribute("/", key); }
  std::int64_t hidden() const { return number("hidden"); }
  Doubles read(const std::string& name) const {
    const std::vector<float> values = file_.open_dataset(name).read_all<float>();
    return {values.begin(), values.end()};
  }
  Tensor tensor_of(const std::string& name) const {
    const Doubles values = read(name);
    Tensor tensor(*device_, Purpose::activation, DType::f32,
                  {file_.open_dataset(name).shape()[0],
                   std::ssize(values) / file_.open_dataset(name).shape()[0]});
    write(tensor, values.data());
    return tensor;
  }
  const Parameter& parameter(const std::string& name) const {
    for (const Parameter& each : store_.parameters())
      if (each.name() == name) return each;
    throw InternalError("no parameter " + name);
  }
  void load(const std::string& name, const std::string& golden) const {
    const Doubles values = read(golden);
    ASSERT_EQ(std::ssize(values), parameter(name).value().numel()) << name;
    write(parameter(name).value(), values.data());
  }
  void expect_near(const TensorView& actual, const std::string& golden) const {
    const Doubles expected = read(golden), values = to_doubles(actual);
    ASSERT_EQ(values.size(), expected.size()) << golden;
    EXPECT_LE(relative_error(values.data(), expected.data(), values.size()), tolerance) << golden;
  }

  hdf5::File file_;
  std::unique_ptr<Device> device_;
  Mesh mesh_;
  ParameterStore store_;
  ExpertsConfig config_;
  std::int64_t num_tokens_ = 0;
  Tensor x_, dx_, ids_, positions_;
  Pass pass_;
};

class WholeBlock : public GoldenBlock {};
class RouterAlone : public GoldenBlock {};

TEST_P(WholeBlock, has_their_outputs_and_gradients) {
  const Placement placement = Placement::contiguous(config_.num_experts, 1);
  MoeLayer layer(store_, "layer", config_, make_router_parts(config_), hidden(), DType::f32,
                 placement, 1, {}, 0.02f, 0.02f);
  RowCapacity capacity;
  MoeLayer::Scratch scratch(*device_, config_, hidden(), DType::f32, num_tokens_, 1, placement,
                            capacity);
  MoeLayer::Saved saved = layer.make_saved(num_tokens_, 1);
  MoeLayer::Derived derived = layer.make_derived(num_tokens_, 1, true);
  saved.for_each_tensor(capacity.adder());
  derived.for_each_tensor(0, capacity.adder());
  store_.allocate();
  std::vector<std::pair<std::string, std::string>> names = {
      {"layer.router.weight", "router.weight"},
      {"layer.experts.gate_up.weight", "experts.gate_up"},
      {"layer.experts.down.weight", "experts.down"}};
  if (config_.shared_width() > 0) {
    names.emplace_back("layer.shared_experts.gate_up.weight", "shared.gate_up");
    names.emplace_back("layer.shared_experts.down.weight", "shared.down");
  }
  if (config_.shared.gate == SharedGate::sigmoid)
    names.emplace_back("layer.shared_experts.gate.weight", "shared.gate");
  for (const auto& [ours, theirs] : names) load(ours, theirs);
  if (config_.bias_rate > 0) load("layer.router.bias", "router.bias");
  layer.pack_weights();
  store_.zero_gradients();

  const Tensor y(*device_, Purpose::activation, DType::f32, {num_tokens_, hidden()});
  layer.forward(x_, y, saved, derived, scratch, capacity, pass_);
  expect_near(y, "y");
  const Tensor dy = tensor_of("dy");
  layer.backward(dy, x_, dx_, saved, derived, scratch, pass_);
  expect_near(dx_, "d x");
  for (const auto& [ours, theirs] : names) expect_near(parameter(ours).gradient(), "d " + theirs);
}

TEST_P(RouterAlone, has_their_weights_and_gradients) {
  Router router(store_, "layer", config_, make_router_parts(config_), hidden(), 1, 0.02f);
  GateRecord gate(*device_, config_, num_tokens_, 1);
  RouterScratch scratch(*device_, config_, hidden(), DType::f32, num_tokens_, 1);
  store_.allocate();
  load("layer.router.weight", "router.weight");
  router.pack_weights();
  store_.zero_gradients();
  router.forward(x_, gate, scratch, pass_);

  const Doubles expected = read("y"), dy = read("dy");
  Doubles dense(expected.size());
  for (std::int64_t t = 0; t < num_tokens_; ++t)
    for (std::int64_t j = 0; j < config_.top_k; ++j) {
      const auto at =
          static_cast<std::size_t>(t * config_.num_experts + gate.indices->row<std::int32_t>(t)[j]);
      dense[at] = static_cast<double>(gate.weights->row<float>(t)[j]);
      scratch.dweights->row<float>(t)[j] = static_cast<float>(dy[at]);
    }
  EXPECT_LE(relative_error(dense.data(), expected.data(), dense.size()), tolerance);
  router.backward(x_, gate, scratch, dx_, pass_);
  expect_near(dx_, "d x");
  expect_near(parameter("layer.router.weight").gradient(), "d router.weight");
}

// The files there are, so that one that is lost is missed.
INSTANTIATE_TEST_SUITE_P(hugging_face, WholeBlock,
                         ::testing::Values("olmoe_block.h5", "qwen2_moe_block.h5",
                                           "qwen3_moe_block.h5", "deepseek_v3_block.h5"));
INSTANTIATE_TEST_SUITE_P(hugging_face, RouterAlone,
                         ::testing::Values("gpt_oss_router.h5", "switch_router.h5",
                                           "deepseek_v2_router.h5"));

}  // namespace
}  // namespace switchyard::test
