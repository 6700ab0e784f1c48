// Families of published models, against what Hugging Face's code computes of the same files
// (tests/golden/families, made by make_family_golden.py): imported, each gives its logits, its loss
// and every gradient, on 1 and 4 ranks and every number of them that shares the experts; decoding
// gives the same logits; exported, the same tensors; imported again, the same checkpoint.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "data/files/atomic_file.hpp"
#include "model/decoder.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/trainer/golden_family.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/inspect.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"
#include "trainer/families/export.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

constexpr double tolerance = 1e-5;  // of a tensor's norm

// A golden batch's sequences from `first` on.
struct GoldenBatch {
  GoldenBatch(Device& device, const GoldenCase& golden, std::int64_t first, std::int64_t number)
      : length(golden.length()) {
    const auto cut = [&](const std::vector<std::int32_t>& all) {
      return std::vector<std::int32_t>(all.begin() + first * length,
                                       all.begin() + (first + number) * length);
    };
    const std::vector<std::int32_t> tokens = cut(golden.ids("tokens"));
    const std::vector<std::int32_t> targets = cut(golden.ids("targets"));
    std::vector<std::int64_t> ids;
    std::vector<std::int32_t> positions;
    for (std::int64_t s = first; s < first + number; ++s) {
      ids.push_back(s);
      for (std::int64_t i = 0; i < length; ++i) positions.push_back(static_cast<std::int32_t>(i));
    }
    const auto put = [&](const auto& values, Shape shape) {
      return kept.emplace_back(tensor_of(device, values, shape)).view();
    };
    batch = {put(tokens, {number, length}),
             put(targets, {number, length}),
             put(ids, {number}),
             put(positions, {number * length}),
             number,
             length};
  }

  std::int64_t length;
  std::vector<Tensor> kept;
  TokenBatch batch;
};

void expect_near(const std::vector<double>& actual, const std::vector<float>& golden,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), golden.size()) << what;
  std::vector<double> differences(actual.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    differences[i] = actual[i] - static_cast<double>(golden[i]);
  const double size = norm_of({golden.begin(), golden.end()});
  EXPECT_LE(norm_of(differences), tolerance * size) << what << ", of a size of " << size;
}

// Elements whose owner is this rank, against the golden ones; summed over the ranks.
void expect_gradients(const ParameterStore& store, const reference_model::Values& expected) {
  double all = 0;
  for (const auto& [name, values] : expected) all += std::pow(norm_of(values), 2);
  std::map<std::string, double> squares;
  for (const auto& [name, values] : expected) squares[name] = 0;
  for (const OwnedRange& range : store.owned_ranges()) {
    if (!range.parameter->is_trained()) continue;
    const float* actual = range.bucket->gradients->as<float>() + range.bucket_begin;
    const std::vector<double>& values = expected.at(range.parameter->name());
    for (std::int64_t i = 0; i < range.numel; ++i)
      squares[range.parameter->name()] += std::pow(
          static_cast<double>(actual[i]) - values[static_cast<std::size_t>(range.global_index(i))],
          2);
  }
  for (auto& [name, sum] : squares) {
    world().all_reduce_values({&sum, 1}, ReduceOp::sum);
    // A gradient that is almost zero beside the others is the sum of terms of their size.
    const double size = std::max(norm_of(expected.at(name)), 1e-3 * std::sqrt(all));
    EXPECT_LE(std::sqrt(sum), tolerance * size) << name << ", of a size of " << size;
  }
}

void expect_step(const GoldenCase& golden, const std::string& checkpoint, std::int64_t expert) {
  SCOPED_TRACE("expert " + std::to_string(expert));
  const auto device = make_tested_device();
  const Mesh mesh(world(), {.expert = expert});
  SmallModel small(*device, mesh, golden.model_case());
  load_checkpoint(checkpoint, small.store, nullptr, world());
  small.model.pack_weights();
  const std::int64_t own = golden.num_sequences() / world().size();
  GoldenBatch batch(*device, golden, world().rank() * own, own);
  Activations activations(small.model, own, golden.length());
  GradientSync sync(small.store);
  small.store.zero_gradients();
  Pass pass = pass_over(batch.batch, 1.0 / world().size());
  pass.sync = &sync;
  sync.arm();
  double loss = small.train(batch.batch, activations, pass).cross_entropy;
  sync.finish();
  world().all_reduce_values({&loss, 1}, ReduceOp::sum);
  expect_near({loss}, golden.floats("cross_entropy"), "cross-entropy");
  expect_gradients(small.store, golden.values_in("gradients.safetensors"));
}

// What transformers' generate() goes on with behind the first tokens of each sequence.
void expect_greedy_text(const GoldenCase& golden, Decoder& decoder) {
  const std::vector<std::int32_t> tokens = golden.ids("tokens"), wanted = golden.ids("greedy");
  const auto number = static_cast<std::size_t>(std::ssize(wanted) / golden.num_sequences());
  const auto length = static_cast<std::size_t>(golden.length()), prompt = length - number;
  std::vector<std::int32_t> greedy;
  for (std::size_t s = 0; s < static_cast<std::size_t>(golden.num_sequences()); ++s) {
    decoder.clear();
    auto logits = decoder.append(std::span(tokens).subspan(s * length, prompt));
    for (std::size_t i = 0; i < number; ++i) {
      const std::int32_t next =
          static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
      greedy.push_back(next);
      if (i + 1 < number) logits = decoder.append({&next, 1});
    }
  }
  EXPECT_EQ(greedy, wanted);
}

// In one pass over whole sequences, and token by token.
void expect_logits(const GoldenCase& golden, const std::string& checkpoint) {
  OneRank rank;
  SmallModel small(*rank.device, rank.mesh, golden.model_case());
  load_checkpoint(checkpoint, small.store, nullptr, world());
  small.model.pack_weights();
  GoldenBatch batch(*rank.device, golden, 0, golden.num_sequences());
  Activations activations(small.model, golden.num_sequences(), golden.length());
  const std::vector<float> expected = golden.floats("logits");
  const Tensor logits(*rank.device, Purpose::workspace, DType::f32,
                      {golden.num_sequences() * golden.length(), golden.config().model.vocab_size});
  small.model.logits(batch.batch, activations, pass_over(batch.batch), logits);
  const std::span<float> values = logits->span<float>();
  expect_near({values.begin(), values.end()}, expected, "logits");
  const std::vector<std::int32_t> tokens = golden.ids("tokens");
  std::vector<double> decoded;
  Decoder decoder(small.model, golden.length());
  for (std::int64_t t = 0; t < std::ssize(tokens); ++t) {
    if (t % golden.length() == 0) decoder.clear();
    for (const float logit :
         decoder.append(std::span(tokens).subspan(static_cast<std::size_t>(t), 1)))
      decoded.push_back(logit);
  }
  expect_near(decoded, expected, "logits of decoding");
  expect_greedy_text(golden, decoder);
}

void expect_equal_files(const std::string& first, const std::string& second) {
  const safetensors::Folder a(first), b(second);
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const auto& [name, place] : a.tensors()) {
    ASSERT_TRUE(b.tensors().contains(name)) << name;
    const safetensors::Folder::Place& other = b.tensors().at(name);
    EXPECT_EQ(place.tensor->shape, other.tensor->shape) << name;
    EXPECT_EQ(read_all(*place.file, *place.tensor), read_all(*other.file, *other.tensor)) << name;
  }
}

void expect_round_trip(const GoldenCase& golden, const std::string& checkpoint,
                       const TemporaryFolder& folder) {
  const std::string output = folder / "exported";
  const Exported exported = export_model(
      golden.config(),
      {.checkpoint = checkpoint,
       .output = output,
       .family = {},
       .shard_bytes = 9000,
       .type = ExportedType::f32},
      [] {}, silent);
  EXPECT_EQ(exported.family, golden.family().name);
  EXPECT_GT(exported.num_files, 1u);
  if (!golden.is_packed()) expect_equal_files(golden.folder(), output);
  const PublishedModel again = read_published_model(output);
  EXPECT_EQ(differing_keys(golden.config(), again.config), std::vector<std::string>());
  std::ostringstream said;
  EXPECT_TRUE(diff_checkpoints(checkpoint, import_to(golden, output, folder / "again"), said))
      << said.str();
  EXPECT_FALSE(fs::exists(output + ".tmp"));
}

TEST(FamilyGoldenTest, EveryFamilyAgrees) {
  const std::vector<std::string> cases = golden_cases();
  ASSERT_GE(cases.size(), 14u);
  for (const std::string& name : cases) {
    SCOPED_TRACE(name);
    const GoldenCase golden(name);
    const TemporaryFolder folder(world());
    std::string checkpoint = folder / "run/checkpoints/step-00000000";
    run_together(world(), [&] {
      if (world().rank() != 0) return;
      EXPECT_EQ(import_to(golden, golden.folder(), folder / "run"), checkpoint);
    });
    for (std::int64_t expert = 1; expert <= world().size(); expert *= 2)
      if (expert == 1 || golden.config().experts.num_experts > 0)
        expect_step(golden, checkpoint, expert);
    if (world().size() > 1) continue;
    expect_logits(golden, checkpoint);
    expect_round_trip(golden, checkpoint, folder);
  }
}

// Three letters and a pair of them.
std::string tokenizer_json() {
  return R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                      "use_regex": true},
    "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
              "byte_fallback": false, "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3},
              "merges": ["a b"]}})";
}

std::string refusal_of_import(const GoldenCase& golden, const std::string& source) {
  const TemporaryFolder folder;
  const Nearest first = [](std::string_view, std::span<const std::string_view> names) {
    return names.empty() ? std::nullopt : std::optional<std::string>(names.front());
  };
  try {
    import_model(golden.family(), golden.config(),
                 {.source = source, .output = folder / "run", .configuration = ""}, first, silent);
  } catch (const DataError& error) {
    EXPECT_FALSE(fs::exists(folder / "run"));
    EXPECT_FALSE(fs::exists(folder / "run.tmp"));
    return error.what();
  }
  return "";
}

// A copy of a golden model with other tensors.
std::string changed_model(
    const std::string& folder, const std::string& to,
    const std::function<void(std::vector<safetensors::TensorInfo>&)>& change) {
  const safetensors::Folder model(folder);
  std::vector<safetensors::TensorInfo> tensors;
  for (const auto& [name, place] : model.tensors()) tensors.push_back(*place.tensor);
  change(tensors);
  fs::create_directories(to);
  safetensors::Writer writer(to + "/model.safetensors", tensors, {});
  for (const safetensors::TensorInfo& tensor : writer.tensors())
    writer.write(tensor, 0, std::vector<std::byte>(static_cast<std::size_t>(tensor.num_bytes())));
  writer.finish();
  return to;
}

TEST(FamilyGoldenTest, WrongTensorsAreNamed) {
  if (world().size() > 1) return;
  const GoldenCase golden("mistral");
  const TemporaryFolder folder;
  const auto refusal = [&](const auto& change) {
    fs::remove_all(folder / "changed");
    return refusal_of_import(golden, changed_model(golden.folder(), folder / "changed", change));
  };
  using Tensors = std::vector<safetensors::TensorInfo>;
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
  };
  EXPECT_EQ(refusal([](Tensors&) {}), "");
  has(refusal([](Tensors& tensors) { tensors.pop_back(); }), "model.norm.weight [16] is missing");
  std::string both = refusal([](Tensors& tensors) { tensors.back().name = "model.nrm.weight"; });
  has(both, "model.norm.weight [16] is missing; the nearest is model.nrm.weight");
  has(both, "model.nrm.weight is unknown to family mistral; the nearest is model.norm.weight");
  has(refusal([](Tensors& tensors) {
        tensors.back().shape = {4, 4};
      }),
      "has shape [4, 4], and by config.json it should have [16]");
  has(refusal([](Tensors& tensors) { tensors.back().type = safetensors::ElementType::i32; }),
      "model.norm.weight has type I32");
  // Scales belong to matrices of 8-bit floats, and to nothing else.
  const auto embedding = [](Tensors& tensors) {
    return std::ranges::find(tensors, "model.embed_tokens.weight", &safetensors::TensorInfo::name);
  };
  has(refusal(
          [&](Tensors& tensors) { embedding(tensors)->type = safetensors::ElementType::f8_e4m3; }),
      "tensor model.embed_tokens.weight_scale_inv is missing");
  has(refusal([](Tensors& tensors) {
        tensors.push_back({.name = "model.embed_tokens.weight_scale_inv",
                           .type = safetensors::ElementType::f32,
                           .shape = {1, 1}});
      }),
      "model.embed_tokens.weight_scale_inv is unknown to family mistral");
  // Of the family's list.
  EXPECT_EQ(refusal([](Tensors& tensors) {
              tensors.push_back({.name = "model.layers.1.self_attn.rotary_emb.inv_freq",
                                 .type = safetensors::ElementType::f32,
                                 .shape = {4}});
            }),
            "");
}

// The tokenizer becomes the run's, its file comes out as it went in; one that cannot be read is
// told, and the weights come in all the same.
TEST(FamilyGoldenTest, TheTokenizerTravels) {
  if (world().size() > 1) return;
  const GoldenCase golden("mistral");
  const TemporaryFolder folder;
  for (const bool is_sound : {true, false}) {
    const std::string name = is_sound ? "sound" : "broken";
    const std::string source = folder / (name + "_source"), run = folder / (name + "_run");
    fs::copy(golden.folder(), source);
    const std::string tokenizer = is_sound ? tokenizer_json() : "{}";
    write_contents(source + "/tokenizer.json", tokenizer);
    std::string said;
    import_model(golden.family(), golden.config(),
                 {.source = source, .output = run, .configuration = ""}, no_suggestion,
                 [&](const std::string& text) { said += text; });
    const std::string checkpoint = run + "/checkpoints/step-00000000";
    EXPECT_EQ(kept_tokenizer(checkpoint).has_value(), is_sound);
    EXPECT_EQ(said.find("the tokenizer cannot be read") == std::string::npos, is_sound) << said;
    export_model(
        golden.config(), {.checkpoint = checkpoint, .output = run + "_out", .family = {}}, [] {},
        silent);
    EXPECT_EQ(contents_of(run + "_out/tokenizer.json"), tokenizer);
  }
}

TEST(FamilyGoldenTest, WhatAFamilyCannotSayIsToldByKey) {
  Config config = GoldenCase("mixtral").config();
  std::vector<std::string> unsayable;
  write_config(family_of("mixtral"), config, unsayable);
  EXPECT_TRUE(unsayable.empty());
  config.model.qk_norm = QkNorm::head;
  config.experts.normalize_top_k = false;
  write_config(family_of("mixtral"), config, unsayable);
  EXPECT_EQ(unsayable, (std::vector<std::string>{"model.qk_norm", "experts.normalize_top_k"}));
}

}  // namespace
}  // namespace switchyard::test
