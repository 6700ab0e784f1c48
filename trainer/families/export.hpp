// A checkpoint becomes a published model: config.json, generation_config.json, the weights as
// safetensors, sharded with an index, and the files that came with the model when it was imported.
// Any layout's checkpoint; weights stream from file to file. The folder appears when it is
// complete.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>

#include "tensor/choice.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/families/family.hpp"

namespace switchyard {

enum class ExportedType : std::uint8_t { bf16, f16, f32 };
constexpr std::array<std::string_view, 3> choice_names(ExportedType) {
  return {"bf16", "f16", "f32"};
}

struct ExportOptions {
  std::string checkpoint;  // a complete checkpoint's folder
  std::string output;      // the folder to be made
  std::string family;      // empty: that of the imported model, or the first that can say it
  std::int64_t shard_bytes = 5'000'000'000;
  ExportedType type = ExportedType::bf16;
};
struct Exported {
  std::string family;
  std::size_t num_files = 0;  // of weights
  std::int64_t num_tensors = 0;
  std::int64_t num_bytes = 0;
};
// config: that of the checkpoint. verified: called before the folder appears; throws if the
// checkpoint is damaged. ConfigError: no family, or not the one asked for, can say the model: with
// the keys. CheckpointError, IoError.
Exported export_model(const Config& config, const ExportOptions& options,
                      const std::function<void()>& verified, const Report& report);

}  // namespace switchyard
