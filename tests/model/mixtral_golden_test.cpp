// Against a program that nobody here wrote: logits, cross-entropy and the gradient of every
// parameter of Hugging Face's Mixtral, from every *.h5 file of the folder SWITCHYARD_GOLDEN
// (default: this repository's tests/golden; make_mixtral_golden.py there makes such files), on the
// instruction set that SWITCHYARD_MAX_ISA allows.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "data/hdf5.hpp"
#include "kernels/isa.hpp"
#include "tests/model/small_model.hpp"

namespace switchyard::test {
namespace {

constexpr double tolerance = 1e-5;
// A golden gradient smaller than this part of the whole gradient is zero but for the rounding of
// single-precision sums. It happens where the exact gradient is zero: the router of a top-1 gate
// whose weight, divided by itself, is always one.
constexpr double noise_level = 0x1p-22;

double norm_of(std::span<const float> values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

std::vector<std::string> golden_files() {
  const char* chosen = std::getenv("SWITCHYARD_GOLDEN");
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(chosen ? chosen : GOLDEN_FOLDER))
    if (entry.path().extension() == ".h5") files.push_back(entry.path().string());
  std::ranges::sort(files);
  return files;
}

double real_attribute(const std::string& path, const char* key) {
  double value = 0;
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t attribute = H5Aopen(file, key, H5P_DEFAULT);
  EXPECT_GE(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), 0) << path << ": attribute " << key;
  H5Aclose(attribute);
  H5Fclose(file);
  return value;
}

// Of files that have them: rotary positions that are stretched, a sliding window in all layers.
void read_long_context(const hdf5::File& file, ModelConfig& model) {
  if (file.has_attribute("/", "rope_scaling")) {
    RopeScalingConfig& scaling = model.rope_scaling;
    scaling.kind = file.string_attribute("/", "rope_scaling");
    scaling.factor = real_attribute(file.path(), "rope_factor");
    scaling.original_length = file.integer_attribute("/", "rope_length");
    scaling.beta_fast = real_attribute(file.path(), "beta_fast");
    scaling.beta_slow = real_attribute(file.path(), "beta_slow");
  }
  if (file.has_attribute("/", "window"))
    model.attention = {
        {.kind = "window", .window = file.integer_attribute("/", "window"), .sinks = 0}};
}

ModelCase case_of(const hdf5::File& file) {
  const auto attribute = [&](const char* key) { return file.integer_attribute("/", key); };
  ModelCase c;
  c.model.vocab_size = attribute("vocab_size");
  c.model.hidden = attribute("hidden");
  c.model.num_layers = attribute("num_layers");
  c.model.num_heads = attribute("num_heads");
  c.model.num_kv_heads = attribute("num_kv_heads");
  c.model.head_dim = attribute("head_dim");
  c.model.tie_embeddings = attribute("tie_embeddings") != 0;
  c.model.rope_base = real_attribute(file.path(), "rope_base");
  c.model.norm_epsilon = real_attribute(file.path(), "norm_epsilon");
  read_long_context(file, c.model);
  c.experts.num_experts = attribute("num_experts");
  c.experts.top_k = attribute("top_k");
  c.experts.intermediate = attribute("intermediate");
  c.experts.balance_weight = 0;
  c.experts.z_weight = 0;
  c.vocab_size_used = c.model.vocab_size;
  return c;
}

// The Hugging Face tensors that, one after the other, are our parameter `name`.
std::vector<std::string> golden_names(const std::string& name, std::int64_t num_experts) {
  if (name == "embedding.weight") return {"model.embed_tokens.weight"};
  if (name == "final_norm.weight") return {"model.norm.weight"};
  if (name == "head.weight") return {"lm_head.weight"};
  const std::size_t dot = name.find('.', std::string("layers.").size());
  const std::string layer = "model." + name.substr(0, dot);
  const std::string part = name.substr(dot);
  if (part == ".attention_norm.weight") return {layer + ".input_layernorm.weight"};
  if (part == ".feed_forward_norm.weight") return {layer + ".post_attention_layernorm.weight"};
  if (part == ".attention.output.weight") return {layer + ".self_attn.o_proj.weight"};
  if (part == ".router.weight") return {layer + ".block_sparse_moe.gate.weight"};
  if (part == ".attention.qkv.weight")
    return {layer + ".self_attn.q_proj.weight", layer + ".self_attn.k_proj.weight",
            layer + ".self_attn.v_proj.weight"};
  std::vector<std::string> names;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    const std::string expert = layer + ".block_sparse_moe.experts." + std::to_string(e);
    if (part == ".experts.gate_up.weight") {
      names.push_back(expert + ".w1.weight");
      names.push_back(expert + ".w3.weight");
    } else if (part == ".experts.down.weight") {
      names.push_back(expert + ".w2.weight");
    }
  }
  return names;
}

class Golden {
 public:
  explicit Golden(const std::string& path)
      : file_(hdf5::File::open(path)),
        case_(case_of(file_)),
        small_(*rank_.device, rank_.mesh, case_),
        tokens_(read<std::int32_t>("tokens")),
        targets_(read<std::int32_t>("targets")) {
    load_weights();
    const Shape shape = file_.open_dataset("tokens").shape();
    ids_.resize(static_cast<std::size_t>(shape[0]));
    for (std::int64_t t = 0; t < shape.numel(); ++t)
      positions_.push_back(static_cast<std::int32_t>(t % shape[1]));
    batch_ = {view_of(*rank_.device, tokens_.data(), shape),
              view_of(*rank_.device, targets_.data(), shape),
              view_of(*rank_.device, ids_.data(), {shape[0]}),
              view_of(*rank_.device, positions_.data(), shape),
              shape[0],
              shape[1]};
  }

  void check() {
    Activations activations(small_.model, batch_.num_sequences, batch_.sequence_length);
    check_logits(activations);
    small_.store.zero_gradients();
    const LossSums losses = small_.model.train(batch_, activations, pass_over(batch_));
    const double expected = read<double>("cross_entropy")[0];
    note("cross_entropy", std::abs(losses.cross_entropy - expected) / expected);
    check_gradients();
    std::printf("%s: worst relative error %.2e (%s)\n", file_.path().c_str(), worst_,
                worst_name_.c_str());
  }

 private:
  template <class T>
  std::vector<T> read(const std::string& name) const {
    return file_.open_dataset(name).read_all<T>();
  }

  void note(const std::string& name, double error) {
    EXPECT_LT(error, tolerance) << file_.path() << ": " << name;
    if (error < worst_) return;
    worst_ = error;
    worst_name_ = name;
  }

  void load_weights() {
    std::set<std::string> unused;
    for (const std::string& name : file_.list("weights")) unused.insert(name);
    for (const Parameter& parameter : small_.store.parameters()) {
      std::span<float> rest = parameter.value().span<float>();
      for (const std::string& name : golden_names(parameter.name(), case_.experts.num_experts)) {
        const std::vector<float> values = read<float>("weights/" + name);
        ASSERT_LE(values.size(), rest.size()) << name;
        std::ranges::copy(values, rest.begin());
        rest = rest.subspan(values.size());
        unused.erase(name);
      }
      ASSERT_TRUE(rest.empty()) << parameter.name();
    }
    EXPECT_TRUE(unused.empty()) << file_.path() << ": no place for " << *unused.begin();
    small_.model.pack_weights();
  }

  void check_logits(Activations& activations) {
    const std::vector<float> golden = read<float>("logits");
    const std::vector<double> expected(golden.begin(), golden.end());
    const Tensor logits(*rank_.device, Purpose::workspace, DType::f32,
                        {batch_.num_sequences * batch_.sequence_length, case_.model.vocab_size});
    ASSERT_EQ(logits->numel(), static_cast<std::int64_t>(expected.size()));
    small_.model.logits(batch_, activations, pass_over(batch_), logits);
    note("logits", relative_error(logits->as<float>(), expected.data(), expected.size()));
  }

  // Norm of all golden gradients together.
  double total_gradient_norm() const {
    double squares = 0;
    for (const std::string& name : file_.list("gradients"))
      for (const float value : read<float>("gradients/" + name))
        squares += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(squares);
  }

  void check_gradients() {
    const double noise = noise_level * total_gradient_norm();
    for (const Parameter& parameter : small_.store.parameters()) {
      const float* gradient = parameter.gradient().as<float>();
      for (const std::string& name : golden_names(parameter.name(), case_.experts.num_experts)) {
        const std::vector<float> golden = read<float>("gradients/" + name);
        check_gradient(name, std::span(gradient, golden.size()), golden, noise);
        gradient += golden.size();
      }
    }
  }

  void check_gradient(const std::string& name, std::span<const float> actual,
                      std::span<const float> golden, double noise) {
    const double golden_norm = norm_of(golden);
    if (golden_norm == 0) {  // an expert without tokens
      EXPECT_EQ(norm_of(actual), 0) << file_.path() << ": " << name;
    } else if (golden_norm < noise) {
      EXPECT_LT(norm_of(actual), noise) << file_.path() << ": " << name;
      std::printf("%s: %s is rounding noise there (%.1e) and here (%.1e)\n", file_.path().c_str(),
                  name.c_str(), golden_norm, norm_of(actual));
    } else {
      const std::vector<double> expected(golden.begin(), golden.end());
      note(name, relative_error(actual.data(), expected.data(), expected.size()));
    }
  }

  hdf5::File file_;
  ModelCase case_;
  OneRank rank_;
  SmallModel small_;
  std::vector<std::int32_t> tokens_, targets_, positions_;
  std::vector<std::int64_t> ids_;
  TokenBatch batch_;
  double worst_ = 0;
  std::string worst_name_;
};

TEST(MixtralGoldenTest, EveryFileAgrees) {
  const std::vector<std::string> files = golden_files();
  ASSERT_FALSE(files.empty()) << "no *.h5 file in the folder";
  for (const std::string& file : files) Golden(file).check();
}

}  // namespace
}  // namespace switchyard::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  switchyard::kernels::limit_isa_from_environment();  // oneDNN takes a limit before its first use
                                                      // only
  std::printf("instruction set %s\n",
              std::string(switchyard::kernels::name_of(switchyard::kernels::active_isa())).c_str());
  return RUN_ALL_TESTS();
}
