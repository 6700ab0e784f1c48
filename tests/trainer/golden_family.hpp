// The golden folders of families of models (tests/golden/families, made by make_family_golden.py),
// for tests that compare with them.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "data/safetensors/folder.hpp"
#include "tests/model/small_model.hpp"
#include "trainer/families/import.hpp"
#include "trainer/families/tensor_map.hpp"

namespace switchyard::test {

inline std::vector<std::string> golden_cases() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GOLDEN_FOLDER))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

inline double norm_of(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

inline std::vector<float> read_all(const safetensors::File& file,
                                   const safetensors::TensorInfo& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
  file.read(tensor, 0, values);
  return values;
}

class GoldenCase {
 public:
  explicit GoldenCase(const std::string& name)
      : folder_(fmt::format("{}/{}", GOLDEN_FOLDER, name)),
        published_(read_published_model(folder_)),
        results_(fmt::format("{}/golden/results.safetensors", folder_)) {
    published_.config.experts.balance_weight = 0;  // the golden loss is the cross-entropy alone
  }

  const std::string& folder() const { return folder_; }
  const Config& config() const { return published_.config; }
  const Family& family() const { return *published_.family; }

  std::vector<float> floats(const std::string& name) const {
    return read_all(results_, find(results_, name));
  }
  std::vector<std::int32_t> ids(const std::string& name) const {
    const safetensors::TensorInfo& tensor = find(results_, name);
    std::vector<std::int32_t> values(static_cast<std::size_t>(tensor.numel()));
    results_.read_bytes(tensor, 0, std::as_writable_bytes(std::span(values)));
    return values;
  }
  std::int64_t num_sequences() const { return find(results_, "tokens").shape[0]; }
  std::int64_t length() const { return find(results_, "tokens").shape[1]; }

  // Of every trained parameter, from published tensors in a file of golden/: the gradients, or the
  // weights after the training.
  reference_model::Values values_in(const std::string& name) const {
    const safetensors::File file(folder_ + "/golden/" + name);
    reference_model::Values values;
    for (const MappedParameter& parameter : map_parameters(family(), config())) {
      std::vector<double>& whole = values[parameter.ours];
      whole.resize(static_cast<std::size_t>(parameter.shape.numel()));
      if (parameter.kind != ParameterKind::trained) continue;
      for (const MappedTensor& part : parameter.parts) {
        std::vector<float> theirs(static_cast<std::size_t>(part.numel));
        file.read(find(file, part.theirs), part.their_begin, theirs);
        std::vector<float> ours = theirs;
        if (part.is_reordered()) to_ours(part, theirs, ours);
        std::ranges::copy(ours, whole.begin() + part.our_begin);
      }
    }
    return values;
  }
  // Whether weights come as MXFP4, and go out in another form.
  bool is_packed() const {
    const safetensors::Folder model(folder_);
    return std::ranges::any_of(
        model.tensors(), [](const auto& tensor) { return tensor.first.ends_with("_blocks"); });
  }

  ModelCase model_case() const {
    return {.name = folder_,
            .model = config().model,
            .experts = config().experts,
            .vocab_size_used = config().model.vocab_size};
  }

 private:
  static const safetensors::TensorInfo& find(const safetensors::File& file,
                                             const std::string& name) {
    for (const safetensors::TensorInfo& tensor : file.tensors())
      if (tensor.name == name) return tensor;
    throw DataError(file.path() + " has no " + name);
  }

  std::string folder_;
  PublishedModel published_;
  safetensors::File results_;
};

inline const Report silent = [](const std::string&) {};
inline const Nearest no_suggestion = [](std::string_view, std::span<const std::string_view>) {
  return std::nullopt;
};

inline std::string import_to(const GoldenCase& golden, const std::string& source,
                             const std::string& output) {
  return import_model(golden.family(), golden.config(),
                      {.source = source, .output = output, .configuration = "run: {}\n"},
                      no_suggestion, silent)
      .checkpoint;
}

}  // namespace switchyard::test
