// Against a program that nobody here wrote: logits, cross-entropy and the gradient of every
// parameter of Hugging Face's Mixtral, from every *.h5 file of the folder SWITCHYARD_GOLDEN
// (default: this repository's tests/golden; make_mixtral_golden.py there makes such files), on the
// instruction set that SWITCHYARD_MAX_ISA allows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "data/hdf5/hdf5.hpp"
#include "kernels/isa.hpp"
#include "tests/model/mixtral_golden.hpp"

namespace switchyard::test {
namespace {

// How far two right programs may lie apart, by the size of the terms. A product of fp32, sum_i w_i
// x_i, is the exact product of weights that differ by a few times 2^-24 of themselves (Higham,
// "Accuracy and Stability of Numerical Algorithms", 3.1), and so are, in their effect, the sums and
// exponentials that follow it. So the bound of a result is how far it moves when every weight moves
// by a random 2^-20 of itself, times `weight_roundings` * 2^-24 / 2^-20, and `few_roundings` of its
// own size. Large weights and long sums raise it by as much as they raise the error; a wrong
// formula does not (AWrongFormulaIsSeen).
constexpr double rounding = 0x1p-24;
constexpr double weight_roundings = 16;
constexpr double few_roundings = 16;
constexpr double moved_by = 0x1p-20;
constexpr int num_moves = 3;
// Moving the weights does not show the terms of a softmax's gradient, p_i (d_i - sum_j p_j d_j),
// where they cancel: exactly zero is that of q and k where a query sees one key, and of the router
// of a top-1 gate whose weight, divided by itself, is one. Their size comes in beside
// (cancelling_terms).
constexpr double softmax_roundings = 8;

std::string golden_folder() {
  const char* chosen = std::getenv("SWITCHYARD_GOLDEN");
  return chosen != nullptr ? chosen : GOLDEN_FOLDER;
}

std::vector<std::string> golden_files() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder()))
    if (entry.path().extension() == ".h5") files.push_back(entry.path().string());
  std::ranges::sort(files);
  return files;
}

// What a model computes of a file's tokens, each tensor under its Hugging Face name.
using Results = std::map<std::string, std::vector<double>>;

struct Comparison {
  std::string name;
  double error = 0;  // norms
  double bound = 0;
  double size = 0;  // of the golden tensor
};

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares);
}

double norm_of(const std::vector<double>& values) {
  return distance(values, std::vector<double>(values.size()));
}

class Golden {
 public:
  // `change`: of the model that computes, to see what a wrong one gives.
  explicit Golden(const std::string& path, const std::function<void(ModelCase&)>& change = {})
      : file_(hdf5::File::open(path)),
        case_(case_of(file_)),
        small_(*rank_.device, rank_.mesh, changed(change)),
        tokens_(file_.open_dataset("tokens").read_all<std::int32_t>()),
        targets_(file_.open_dataset("targets").read_all<std::int32_t>()) {
    load_weights();
    const Shape shape = file_.open_dataset("tokens").shape();
    ids_.resize(static_cast<std::size_t>(shape[0]));
    for (std::int64_t t = 0; t < shape.numel(); ++t)
      positions_.push_back(static_cast<std::int32_t>(t % shape[1]));
    const auto put = [&](const auto& values, Shape as) {
      return on_device_.emplace_back(tensor_of(*rank_.device, values, as)).view();
    };
    batch_ = {put(tokens_, shape),
              put(targets_, shape),
              put(ids_, {shape[0]}),
              put(positions_, shape),
              shape[0],
              shape[1]};
  }

  std::vector<Comparison> compare() {
    const Results here = compute();
    std::map<std::string, double> moved = distances_when_weights_move(here);
    std::vector<Comparison> comparisons;
    for (const auto& [name, values] : here) {
      const std::vector<double> golden = read(name);
      const double size = norm_of(golden);
      const double bound = weight_roundings * rounding / moved_by * moved[name] +
                           few_roundings * rounding * size +
                           softmax_roundings * rounding * cancelling_terms(name, here);
      // An expert without tokens: nothing is added.
      const bool is_unused = size == 0 && name.find(".experts.") != std::string::npos;
      comparisons.push_back({name, distance(values, golden), is_unused ? 0 : bound, size});
    }
    return comparisons;
  }

 private:
  ModelCase changed(const std::function<void(ModelCase&)>& change) const {
    ModelCase c = case_;
    if (change) change(c);
    return c;
  }

  std::vector<double> read(const std::string& name) const {
    if (name == "cross_entropy") return file_.open_dataset(name).read_all<double>();
    const std::vector<float> values =
        file_.open_dataset(name == "logits" ? name : "gradients/" + name).read_all<float>();
    return {values.begin(), values.end()};
  }

  double weight_norm(const std::string& name) const {
    const std::vector<float> values = file_.open_dataset("weights/" + name).read_all<float>();
    return norm_of({values.begin(), values.end()});
  }

  // The size of the terms that cancel in the gradients of q, k and the router; 0 for the others. x,
  // normalized, has norm sqrt(H), so |k| = |Wk x| is about |Wk|. With dy, the gradient of what
  // attention returns, d_j = dout v_j has dout = Wo^T dy, about |Wo| |dy| / sqrt(H), and dy out^T
  // with |out| about |v| is the gradient of Wo. So the gradient of Wq, sum scale p d k x^T, has
  // terms of scale |Wk| |Wo| |dWo|, that of Wk of scale |Wq| |Wo| |dWo|. The router's d = dy out_e
  // has out_e = Wdown act, about |Wdown| |act| / sqrt(E I), and dy act^T is the gradient of Wdown.
  double cancelling_terms(const std::string& name, const Results& here) const {
    const auto layer_of = [&](const char* part) { return name.substr(0, name.find(part)); };
    for (const auto& [part, other] : {std::pair("self_attn.q_proj", "self_attn.k_proj.weight"),
                                      std::pair("self_attn.k_proj", "self_attn.q_proj.weight")}) {
      if (name.find(part) == std::string::npos) continue;
      const std::string output = layer_of(part) + "self_attn.o_proj.weight";
      return weight_norm(layer_of(part) + other) * weight_norm(output) * norm_of(here.at(output)) /
             std::sqrt(static_cast<double>(case_.model.head_dim));
    }
    const char* router = "block_sparse_moe.gate";
    if (name.find(router) == std::string::npos) return 0;
    double weights = 0, gradients = 0;  // squares, over the experts
    for (std::int64_t e = 0; e < case_.experts.num_experts; ++e) {
      const std::string down =
          layer_of(router) + "block_sparse_moe.experts." + std::to_string(e) + ".w2.weight";
      weights += std::pow(weight_norm(down), 2);
      gradients += std::pow(norm_of(here.at(down)), 2);
    }
    return std::sqrt(weights * gradients * static_cast<double>(case_.model.hidden) /
                     static_cast<double>(case_.experts.num_experts * case_.experts.intermediate));
  }

  void load_weights() {
    std::set<std::string> unused;
    for (const std::string& name : file_.list("weights")) unused.insert(name);
    for (const Parameter& parameter : small_.store.parameters()) {
      std::span<float> rest = parameter.value().span<float>();
      for (const std::string& name : golden_names(parameter.name(), case_.experts.num_experts)) {
        const std::vector<float> values = file_.open_dataset("weights/" + name).read_all<float>();
        ASSERT_LE(values.size(), rest.size()) << name;
        std::ranges::copy(values, rest.begin());
        rest = rest.subspan(values.size());
        unused.erase(name);
      }
      ASSERT_TRUE(rest.empty()) << parameter.name();
    }
    EXPECT_TRUE(unused.empty()) << file_.path() << ": no place for " << *unused.begin();
  }

  Results compute() {
    small_.model.pack_weights();
    Results results;
    Activations activations(small_.model, batch_.num_sequences, batch_.sequence_length);
    const Tensor logits(*rank_.device, Purpose::workspace, DType::f32,
                        {batch_.num_sequences * batch_.sequence_length, case_.model.vocab_size});
    small_.model.logits(batch_, activations, pass_over(batch_), logits);
    const std::span<float> values = logits->span<float>();
    results["logits"].assign(values.begin(), values.end());
    small_.store.zero_gradients();
    const LossSums losses = small_.train(batch_, activations, pass_over(batch_));
    results["cross_entropy"] = {losses.cross_entropy};
    for (const Parameter& parameter : small_.store.parameters()) {
      const float* gradient = parameter.gradient().as<float>();
      for (const std::string& name : golden_names(parameter.name(), case_.experts.num_experts)) {
        const std::int64_t size = file_.open_dataset("gradients/" + name).shape().numel();
        results[name].assign(gradient, gradient + size);
        gradient += size;
      }
    }
    return results;
  }

  std::map<std::string, double> distances_when_weights_move(const Results& here) {
    std::map<std::string, double> farthest;
    std::mt19937 random(1);
    for (int move = 0; move < num_moves; ++move) {
      for (const Parameter& parameter : small_.store.parameters())
        for (float& value : parameter.value().span<float>())
          value *= static_cast<float>(1 + ((random() & 1) != 0 ? moved_by : -moved_by));
      for (const auto& [name, values] : compute())
        farthest[name] = std::max(farthest[name], distance(values, here.at(name)));
      load_weights();
    }
    return farthest;
  }

  hdf5::File file_;
  ModelCase case_;
  OneRank rank_;
  SmallModel small_;
  std::vector<std::int32_t> tokens_, targets_, positions_;
  std::vector<std::int64_t> ids_;
  std::vector<Tensor> on_device_;
  TokenBatch batch_;
};

double over_bound(const Comparison& c) {
  return c.error > 0 ? c.error / c.bound : 0;
}

TEST(MixtralGoldenTest, EveryFileAgrees) {
  const std::vector<std::string> files = golden_files();
  ASSERT_FALSE(files.empty()) << "no *.h5 file in the folder";
  for (const std::string& file : files) {
    Comparison worst;
    for (const Comparison& c : Golden(file).compare()) {
      EXPECT_LE(c.error, c.bound) << file << ": " << c.name << ", size " << c.size;
      if (over_bound(c) > over_bound(worst)) worst = c;
    }
    std::printf("%s: worst %s: error %.1e of a size of %.1e, %.2f of the bound\n", file.c_str(),
                worst.name.c_str(), worst.error, worst.size, over_bound(worst));
  }
}

// The bounds, wide as they are for large weights, still tell a formula that is slightly wrong.
TEST(MixtralGoldenTest, AWrongFormulaIsSeen) {
  struct Mistake {
    const char* name;
    std::function<void(ModelCase&)> change;
  };
  const Mistake mistakes[] = {
      {"norms divide by sqrt(mean + 2e-5)", [](ModelCase& c) { c.model.norm_epsilon = 2e-5; }},
      {"positions turn faster by a thousandth", [](ModelCase& c) { c.model.rope_base *= 1.001; }},
      {"a window that is one key short",
       [](ModelCase& c) {
         c.model.mixer = {{.kind = MixerKind::window, .window = 23, .sinks = 0}};
       }},
      {"weights of experts that do not add up to one",
       [](ModelCase& c) { c.experts.normalize_top_k = false; }},
      {"one expert too many", [](ModelCase& c) { ++c.experts.top_k; }},
      {"a balance loss that nobody asked for",
       [](ModelCase& c) { c.experts.balance_weight = 1e-2; }},
  };
  for (const char* file : {"large_weights.h5", "wide_head.h5"})
    for (const Mistake& mistake : mistakes) {
      double worst = 0;
      for (const Comparison& c : Golden(golden_folder() + "/" + file, mistake.change).compare())
        worst = std::max(worst, over_bound(c));
      EXPECT_GT(worst, 2) << file << ": " << mistake.name;
      std::printf("%s, %s: %.1f times the bound\n", file, mistake.name, worst);
    }
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
