// Policies of activations against keep: the same bits, whatever a layer does with its record.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <map>

#include "tensor/error.hpp"
#include "tests/model/small_model.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t num_sequences = 4;
constexpr std::int64_t length = 6;

// Copies at once, and overwrites what it took, so that whoever reads too early sees garbage.
class CopyingStore final : public ActivationStore {
 public:
  bool is_in_memory() const override { return true; }
  void prepare(std::int64_t, std::span<const RecordTensor>, RowCapacity&) override {}
  void start_write(std::int64_t layer, std::span<const RecordTensor> record) override {
    for (const RecordTensor& part : record) {
      const TensorView view = part.used();
      if (view.device->is_plan()) continue;
      const auto bytes = static_cast<std::size_t>(view.num_bytes());
      std::vector<std::byte>& copy = copies_[{layer, part.name}];
      copy.assign(view.data, view.data + bytes);
      statistics_.bytes_written += static_cast<double>(bytes);
      // The stream is still wanted by the layer that follows.
      if (std::string_view(part.name) != "stream_after_mixer") std::memset(view.data, 0x7f, bytes);
    }
  }
  void start_read(std::int64_t layer, std::span<const RecordTensor> record) override {
    for (const RecordTensor& part : record) {
      const TensorView view = part.used();
      if (view.device->is_plan()) continue;
      const std::vector<std::byte>& copy = copies_.at({layer, part.name});
      ASSERT_EQ(static_cast<std::int64_t>(copy.size()), view.num_bytes()) << part.name;
      std::copy(copy.begin(), copy.end(), view.data);
      statistics_.bytes_read += static_cast<double>(copy.size());
    }
  }
  bool wait_for(std::int64_t, double) override { return true; }
  Statistics statistics() const override { return statistics_; }

 private:
  std::map<std::pair<std::int64_t, std::string>, std::vector<std::byte>> copies_;
  Statistics statistics_;
};

struct Result {
  std::vector<double> losses;
  std::map<std::string, std::vector<float>> gradients;
};

// Several steps, each with another batch (so that the routed rows differ), an evaluation between.
Result run_steps(Device& device, const Mesh& mesh, const ModelCase& c, DType compute,
                 const ActivationOptions& options) {
  SmallModel small(device, mesh, c, compute);
  Activations activations(small.model, num_sequences, length, options);
  Result result;
  small.store.zero_gradients();
  for (std::int64_t step = 0; step < 3; ++step) {
    SmallBatch batch((3 * step + world().rank()) * num_sequences, num_sequences, length,
                     c.vocab_size_used);
    const TokenBatch tokens = batch.on(device);
    Pass pass = pass_over(tokens, 1.0 / world().size());
    pass.step = step;
    const LossSums losses = small.train(tokens, activations, pass);
    result.losses.insert(result.losses.end(), {losses.cross_entropy, losses.balance, losses.z});
    pass.training = false;
    result.losses.push_back(small.evaluate(tokens, activations, pass).cross_entropy);
  }
  if (device.is_plan()) return result;
  for (const Parameter& parameter : small.store.parameters()) {
    if (parameter.gradient().empty()) continue;
    const std::span<float> gradient = parameter.gradient().span<float>();
    result.gradients[parameter.name()].assign(gradient.begin(), gradient.end());
  }
  return result;
}

void expect_same_bits(const Result& result, const Result& expected) {
  EXPECT_EQ(result.losses, expected.losses);
  ASSERT_EQ(result.gradients.size(), expected.gradients.size());
  for (const auto& [name, values] : expected.gradients)
    EXPECT_EQ(
        std::memcmp(values.data(), result.gradients.at(name).data(), values.size() * sizeof(float)),
        0)
        << name;
}

std::vector<ModelCase> cases() {
  std::vector<ModelCase> all = {mixed_case(),   all_experts_case(), dense_case(),
                                dropout_case(), shared_case(),      mixers_alone_case()};
  if (!is_tested_on_card()) all.push_back(convolved_case());
  if (!is_tested_on_card())
    for (const MixerConfig& mixer : recurrent_mixers()) all.push_back(hybrid_case(mixer));
  for (ModelCase& c : all) c.model.num_layers = 5;
  return all;
}

struct NamedPolicies {
  std::string name;
  std::vector<LayerPolicy> policies;
};

std::vector<NamedPolicies> policies() {
  using enum LayerPolicy;
  return {{"recompute", {recompute, recompute, recompute, recompute, recompute}},
          {"some recompute", {keep, recompute, keep, recompute}},
          {"spill", {spill, spill, spill, spill, spill}},
          {"one spills", {keep, keep, spill}},
          {"mixture", {spill, recompute, spill, keep, spill}}};
}

std::vector<std::int64_t> legal_expert_degrees() {
  std::vector<std::int64_t> degrees;
  for (std::int64_t degree = 1; degree <= world().size(); ++degree)
    if (world().size() % degree == 0) degrees.push_back(degree);
  return degrees;
}

TEST(ActivationPolicyTest, EveryPolicyGivesTheBitsOfKeep) {
  DType compute = DType::f32;
  for (const ModelCase& c : cases()) {
    compute = compute == DType::f32 ? DType::bf16 : DType::f32;
    for (const std::int64_t degree : legal_expert_degrees()) {
      const Mesh mesh(world(), {.expert = degree});
      const auto device = make_tested_device();
      const Result expected = run_steps(*device, mesh, c, compute, {});
      for (const NamedPolicies& each : policies()) {
        SCOPED_TRACE(c.name + " " + std::string(name_of(compute)) + ", expert " +
                     std::to_string(degree) + ", " + each.name);
        CopyingStore store;
        const auto other = make_tested_device();
        const Result result =
            run_steps(*other, mesh, c, compute, {.policies = each.policies, .store = &store});
        expect_same_bits(result, expected);
        EXPECT_EQ(store.statistics().bytes_written > 0,
                  std::count(each.policies.begin(), each.policies.end(), LayerPolicy::spill) > 2);
        EXPECT_EQ(store.statistics().bytes_written, store.statistics().bytes_read);
      }
    }
  }
}

std::array<double, num_parts> flops_by_part(const ModelCase& c, const ActivationOptions& options) {
  const auto device = make_plan_device();
  const Mesh mesh(*device, world().rank(), world().size(), {.expert = world().size()});
  run_steps(*device, mesh, c, DType::bf16, options);
  std::array<double, num_parts> flops{};
  for (int part = 0; part < num_parts; ++part)
    flops[static_cast<std::size_t>(part)] = device->profile().work(static_cast<Part>(part)).flops;
  return flops;
}

TEST(ActivationPolicyTest, RecomputeNeitherRoutesNorAttendsAgain) {
  const ModelCase c = cases()[1];
  const std::vector<LayerPolicy> all(5, LayerPolicy::recompute);
  const auto kept = flops_by_part(c, {});
  const auto again = flops_by_part(c, {.policies = all});
  const auto at = [](const std::array<double, num_parts>& flops, Part part) {
    return flops[static_cast<std::size_t>(part)];
  };
  EXPECT_EQ(at(again, Part::router), at(kept, Part::router));
  EXPECT_EQ(at(again, Part::head), at(kept, Part::head));
  EXPECT_GT(at(again, Part::experts), at(kept, Part::experts));
  // The two projections and the rotation, in three training passes of five layers; the attention
  // itself is not in.
  const std::int64_t head_cols = c.model.num_heads * c.model.head_dim;
  const std::int64_t kv_cols = c.model.num_kv_heads * c.model.head_dim;
  const double projections = 2.0 * static_cast<double>(num_sequences * length * c.model.hidden *
                                                       (2 * head_cols + 2 * kv_cols));
  const double more = at(again, Part::attention) - at(kept, Part::attention);
  EXPECT_GE(more, 15 * projections);
  EXPECT_LE(more, 15 * 1.05 * projections);
}

// Who deals with whole records (stores, budgets, captures) sees only what they name.
TEST(ActivationPolicyTest, RecordsNameAllTheirTensors) {
  constexpr std::int64_t num_rows = 7;
  OneRank rank;
  Device& device = *rank.device;
  const ModelCase c = mixed_case();  // a layer with experts and one without
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    ParameterStore store(device, rank.mesh);
    const Placement placement = Placement::contiguous(c.experts.num_experts, 1);
    const Block block(store, layer, c.model, c.experts, placement, DType::bf16, 1, 1);
    const Block other(store, 1 - layer, c.model, c.experts, placement, DType::bf16, 1, 1);
    const std::int64_t before = device.memory().live(Purpose::activation);
    Block::Saved saved = block.make_saved(num_sequences * length, num_sequences);
    Block::Derived derived = block.make_derived(num_sequences * length, num_sequences, true);
    std::map<std::string, std::int64_t> bytes;
    std::int64_t total = 0;
    const auto measure = [&](const RecordTensor& part) {
      if (part.follows_rows) part.tensor->grow_rows(num_rows);
      const std::int64_t now = MemoryLedger::rounded((*part.tensor)->num_bytes());
      EXPECT_TRUE(bytes.emplace(part.name, now).second) << part.name << " is named twice";
      total += now;
    };
    block.for_each_tensor(saved, derived, measure);
    EXPECT_EQ(total, device.memory().live(Purpose::activation) - before) << layer;
    // In a record that both kinds of blocks use, each fills its own part.
    other.extend_saved(saved, num_sequences * length, num_sequences);
    other.extend_derived(derived, num_sequences * length, num_sequences, true);
    std::size_t num_own = 0, num_all = 0;
    block.for_each_tensor(saved, derived, [&](const RecordTensor& part) {
      EXPECT_TRUE(bytes.contains(part.name)) << part.name;
      ++num_own;
    });
    const auto count = [&](const RecordTensor&) { ++num_all; };
    saved.for_each_tensor(count);
    derived.for_each_tensor(num_rows, count);
    EXPECT_EQ(num_own, bytes.size());
    EXPECT_GT(num_all, num_own);
  }
}

std::int64_t peak_of(const ModelCase& c, const ActivationOptions& options) {
  const auto device = make_plan_device();
  const Mesh mesh(*device, world().rank(), world().size(), {.expert = 1});
  run_steps(*device, mesh, c, DType::bf16, options);
  return device->memory().at_peak(Purpose::activation);
}

TEST(ActivationPolicyTest, MemoryFallsAsPlanned) {
  for (ModelCase c : cases()) {
    SCOPED_TRACE(c.name);
    c.model.num_layers = 8;
    CopyingStore store;
    const std::int64_t kept = peak_of(c, {});
    const std::int64_t recomputed =
        peak_of(c, {.policies = std::vector(8, LayerPolicy::recompute)});
    const std::int64_t spilled =
        peak_of(c, {.policies = std::vector(8, LayerPolicy::spill), .store = &store});
    EXPECT_LT(recomputed, 0.6 * static_cast<double>(kept));
    EXPECT_LT(spilled, 0.6 * static_cast<double>(kept));
  }
}

TEST(ActivationPolicyTest, ABudgetBelowTwoRecordsNamesTheLeastLegalOne) {
  OneRank rank;
  const ModelCase c = cases()[0];
  SmallModel small(*rank.device, rank.mesh, c);
  CopyingStore store;
  ActivationOptions options{.policies = std::vector(5, LayerPolicy::spill), .store = &store};
  options.memory_bytes = 1;
  try {
    const Activations activations(small.model, 400, 50, options);
    FAIL() << "one byte holds no record";
  } catch (const ConfigError& error) {
    const std::string text = error.what();
    const std::size_t at = text.find("Use at least ");
    ASSERT_NE(at, std::string::npos) << text;
    const std::int64_t least = std::stoll(text.substr(at + 13));
    options.memory_bytes = least * 1'000'000;
    EXPECT_NO_THROW(Activations(small.model, 400, 50, options));
    options.memory_bytes -= 1'000'000;
    EXPECT_THROW(Activations(small.model, 400, 50, options), ConfigError);
  }
}

}  // namespace
}  // namespace switchyard::test
