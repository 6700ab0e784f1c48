// Every name and shape of published models, as Hugging Face's code has them for the published
// configurations (tests/golden/published, made by make_published_names.py), is the name of a
// parameter of ours, and no parameter is without one. And weights of 8-bit floats get their scales.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/families/import.hpp"
#include "trainer/families/published_tensor.hpp"
#include "trainer/families/tensor_map.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

// "[2, 3] model.layers.#.x", and how many names there are of it.
using Counts = std::map<std::string, std::int64_t>;

Counts published_counts(const std::string& path) {
  std::ifstream file(path);
  Counts counts;
  std::int64_t number = 0;
  for (std::string what; file >> number && std::getline(file >> std::ws, what);)
    counts[what] = number;
  return counts;
}

std::string without_numbers(const std::string& name) {
  std::string result, part;
  for (std::stringstream parts(name); std::getline(parts, part, '.');) {
    const bool is_number = std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
    result += (result.empty() ? "" : ".") + (is_number ? std::string("#") : part);
  }
  return result;
}

Counts our_counts(const PublishedModel& model) {
  Counts counts;
  std::set<std::string> names;
  for (const MappedParameter& parameter : map_parameters(*model.family, model.config))
    for (const MappedTensor& part : parameter.parts)
      if (names.insert(part.theirs).second)
        ++counts[safetensors::shape_text(part.shape) + " " + without_numbers(part.theirs)];
  return counts;
}

TEST(PublishedNames, MapWithoutARest) {
  std::set<std::string> families_seen;
  for (const auto& entry : fs::directory_iterator(PUBLISHED_FOLDER)) {
    SCOPED_TRACE(entry.path().filename().string());
    const PublishedModel model = read_published_model(entry.path().string());
    families_seen.insert(std::string(model.family->name));
    const Counts expected = published_counts((entry.path() / "tensors.txt").string());
    EXPECT_GT(expected.size(), 10u);
    EXPECT_EQ(our_counts(model), expected);
    // And the configuration goes out as it came in.
    std::vector<std::string> unsayable;
    write_config(*model.family, model.config, unsayable);
    EXPECT_EQ(unsayable, std::vector<std::string>());
  }
  EXPECT_EQ(families_seen.size(), families().size());
}

std::string refusal_of_config(const std::string& config) {
  const TemporaryFolder folder;
  write_contents(folder / "config.json", config);
  try {
    read_published_model(folder.path());
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(PublishedConfig, WhatIsNotComputedHereIsToldByKey) {
  const auto llama = [](const std::string& more) {
    return refusal_of_config(R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 8,
      "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8)" +
                             more + "}");
  };
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
  };
  EXPECT_EQ(llama(""), "");
  has(llama(R"(, "hidden_act": "gelu")"), "hidden_act is \"gelu\"");
  has(llama(R"(, "mlp_bias": true)"), "mlp_bias is true");
  has(llama(R"(, "rope_scaling": {"type": "dynamic", "factor": 2})"), "type is \"dynamic\"");
  has(llama(R"(, "quantization_config": {"quant_method": "gptq"})"), "quant_method is \"gptq\"");
  has(llama(R"(, "head_dim": 1.5)"), "head_dim must be a whole number");
  has(refusal_of_config(R"({"model_type": "llama"})"), "vocab_size is missing");
  has(refusal_of_config(R"({"model_type": "gpt2"})"), "'gpt2' is no family");
  has(refusal_of_config("[]"), "is no JSON object");
}

TEST(PublishedTensorTest, BlocksOf128HaveTheirScales) {
  const TemporaryFolder folder;
  const std::int64_t num_rows = 130, num_cols = 129;
  safetensors::Writer writer(
      folder / "model.safetensors",
      {{.name = "w", .type = safetensors::ElementType::f8_e4m3, .shape = {num_rows, num_cols}},
       {.name = "w_scale_inv", .type = safetensors::ElementType::f32, .shape = {2, 2}},
       {.name = "v", .type = safetensors::ElementType::f8_e4m3, .shape = {2}},
       {.name = "v_scale_inv", .type = safetensors::ElementType::f32, .shape = {1}}},
      {});
  constexpr std::byte one{0x38};  // 1.0
  const std::vector<safetensors::TensorInfo>& written = writer.tensors();
  writer.write(written[0], 0,
               std::vector<std::byte>(static_cast<std::size_t>(num_rows * num_cols), one));
  const std::vector<float> scales = {1, 2, 4, 8};
  writer.write(written[1], 0, std::as_bytes(std::span(scales)));
  writer.write(written[2], 0, std::vector<std::byte>(2, one));
  writer.write(written[3], 0, std::as_bytes(std::span(scales).first(1)));
  writer.finish();
  const safetensors::Folder model(folder.path());
  const PublishedTensor tensor(model.tensors(), "w");
  std::vector<float> values(static_cast<std::size_t>(num_cols + 3));
  tensor.read(127 * num_cols - 2, values);  // two of row 126, row 127, one of row 128
  EXPECT_EQ(values[0], 1);
  EXPECT_EQ(values[1], 2);
  EXPECT_EQ(values[2], 1);
  EXPECT_EQ(values[129], 1);
  EXPECT_EQ(values[130], 2);
  EXPECT_EQ(values[131], 4);
  EXPECT_THROW(PublishedTensor(model.tensors(), "v"), DataError);
}

}  // namespace
}  // namespace switchyard::test
