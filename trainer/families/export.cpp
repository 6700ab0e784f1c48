#include "trainer/families/export.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "data/files/atomic_file.hpp"
#include "data/safetensors/folder.hpp"
#include "data/safetensors/numbers.hpp"
#include "tensor/error.hpp"
#include "trainer/checkpoint/checkpoint_files.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"
#include "trainer/checkpoint/place.hpp"
#include "trainer/checkpoint/reader.hpp"
#include "trainer/families/kept_files.hpp"
#include "trainer/families/new_folder.hpp"
#include "trainer/families/progress_report.hpp"
#include "trainer/families/slices_in_flight.hpp"
#include "trainer/families/tensor_map.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;
using safetensors::ElementType;

constexpr std::int64_t block_numel = 1 << 20;  // elements of a slice
constexpr std::int64_t piece_numel = 1 << 17;  // of it in memory, where rows are in our order

ElementType element_type(ExportedType type) {
  switch (type) {
    case ExportedType::bf16:
      return ElementType::bf16;
    case ExportedType::f16:
      return ElementType::f16;
    case ExportedType::f32:
      break;
  }
  return ElementType::f32;
}

struct ChosenFamily {
  const Family* family = nullptr;
  ConfigJson json;
};

ChosenFamily choose_family(const Config& config, const std::string& wanted,
                           const std::optional<ConfigJson>& kept) {
  std::string reasons;
  const auto can_say = [&](const Family& family, ChosenFamily& choice) {
    std::vector<std::string> unsayable;
    choice = {&family, write_config(family, config, unsayable)};
    if (!unsayable.empty())
      reasons += fmt::format("\n  {}: {}", family.name, fmt::join(unsayable, ", "));
    return unsayable.empty();
  };
  const std::string first = !wanted.empty() ? wanted
                            : kept          ? kept->text("model_type", std::string())
                                            : std::string();
  ChosenFamily choice;
  if (!first.empty() && can_say(family_of(first), choice)) return choice;
  if (wanted.empty())
    for (const Family& family : families())
      if (family.name != first && can_say(family, choice)) return choice;
  throw ConfigError(
      fmt::format("no family of published models has a config.json for this model; the keys that "
                  "differ, by family:{}",
                  reasons));
}

void set_or_null(ConfigJson& json, std::string_view key, std::optional<std::int64_t> value) {
  value ? json.set(key, *value) : json.set_null(key);
}

// Of a model of our own: what begins and ends a document; what the family would take for it are
// tokens of another vocabulary.
void add_own_tokens(const std::optional<KeptTokenizer>& own, ConfigJson& json) {
  std::optional<std::int64_t> begin, end;
  if (own) {
    end = own->tokenizer->end_of_document();
    if (const auto tokens = own->tokenizer->begin_of_document(); !tokens.empty()) begin = tokens[0];
  }
  set_or_null(json, "bos_token_id", begin);
  set_or_null(json, "eos_token_id", end);
  json.set_null("pad_token_id");
}

// What the model's mathematics leaves open comes from the model that it was made of.
void add_kept_keys(const std::optional<ConfigJson>& kept, const std::optional<KeptTokenizer>& own,
                   ElementType type, ConfigJson& json) {
  json.set_text("torch_dtype", type == ElementType::f32   ? "float32"
                               : type == ElementType::f16 ? "float16"
                                                          : "bfloat16");
  if (!kept) return add_own_tokens(own, json);
  for (const char* key :
       {"bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings"})
    json.copy(key, *kept);
}

std::string generation_text(const ConfigJson& config) {
  ConfigJson json;
  json.set_flag("_from_model_config", true);
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) json.copy(key, config);
  return json.dump();
}

// A part of a published tensor, and where it lies in the checkpoint.
struct Source {
  const SavedTensor* saved = nullptr;
  const MappedTensor* part = nullptr;
  ElementType type = ElementType::f32;  // what is not trained stays as it is
};

std::vector<Source> sources_of(const CheckpointReader& reader,
                               const std::vector<MappedParameter>& parameters, ElementType type) {
  std::vector<Source> sources;
  for (const MappedParameter& parameter : parameters) {
    const SavedTensor* saved = reader.manifest().find(parameter.ours);
    if (saved == nullptr || saved->shape != parameter.shape)
      throw CheckpointError(
          fmt::format("{}: by its configuration the model has a tensor {} {}; the checkpoint {}",
                      reader.folder(), parameter.ours, parameter.shape.to_string(),
                      saved == nullptr ? "has none" : "has one " + saved->shape.to_string()));
    for (const MappedTensor& part : parameter.parts)
      sources.push_back(
          {saved, &part, parameter.kind == ParameterKind::trained ? type : ElementType::f32});
  }
  return sources;
}

// Elements of a slice: all of a part whose rows are not in our order.
std::int64_t slice_numel(const MappedTensor& part) {
  return part.is_reordered() ? part.numel : std::min(part.numel, block_numel);
}

std::int64_t largest_slice(const std::vector<Source>& sources) {
  std::int64_t bytes = 0;
  for (const Source& source : sources)
    bytes = std::max(
        bytes, slice_numel(*source.part) * (std::int64_t{sizeof(float)} + size_of(source.type)));
  return bytes;
}

// Elements [begin, begin + numel) of the part, and where they lie in the checkpoint.
struct Slice {
  std::int64_t begin = 0, numel = 0;
  std::vector<StoredRun> runs;
};

// What a thread does with a part whose rows are not in our order.
void write_reordered(const Slice& slice, const Source& source,
                     const safetensors::TensorInfo& tensor, SliceBuffer& buffer,
                     safetensors::Writer& writer) {
  buffer.numbers.resize(static_cast<std::size_t>(slice.numel));
  for (const StoredRun& run : slice.runs)
    run.read(
        0, std::span(buffer.numbers)
               .subspan(static_cast<std::size_t>(run.begin), static_cast<std::size_t>(run.numel)));
  buffer.bytes.resize(buffer.numbers.size() * static_cast<std::size_t>(size_of(source.type)));
  to_theirs(*source.part, buffer.numbers, source.type, buffer.bytes);
  writer.write(tensor, (source.part->their_begin + slice.begin) * size_of(source.type),
               buffer.bytes);
}

// And with any other, piece by piece: each stays in a cache from the read to the write.
void write_in_order(const Slice& slice, const Source& source, const safetensors::TensorInfo& tensor,
                    SliceBuffer& buffer, safetensors::Writer& writer) {
  for (const StoredRun& run : slice.runs)
    for (std::int64_t at = 0; at < run.numel; at += piece_numel) {
      buffer.numbers.resize(static_cast<std::size_t>(std::min(piece_numel, run.numel - at)));
      buffer.bytes.resize(buffer.numbers.size() * static_cast<std::size_t>(size_of(source.type)));
      run.read(at, buffer.numbers);
      safetensors::from_floats(buffer.numbers, source.type, buffer.bytes);
      const std::int64_t begin = source.part->their_begin + slice.begin + run.begin + at;
      writer.write(tensor, begin * size_of(source.type), buffer.bytes);
    }
}

void write_part(CheckpointReader& reader, const Source& source,
                const safetensors::TensorInfo& tensor, safetensors::Writer& writer,
                SlicesInFlight& slices) {
  const MappedTensor& part = *source.part;
  const std::int64_t step = slice_numel(part);
  for (std::int64_t at = 0; at < part.numel; at += step) {
    SliceBuffer& buffer = slices.take();
    Slice slice{at, std::min(step, part.numel - at), {}};
    slice.runs =
        reader.stored_runs(SavedPart::value, *source.saved, part.our_begin + at, slice.numel);
    slices.begin([slice = std::move(slice), &buffer, &source, &tensor, &writer] {
      const auto& write = source.part->is_reordered() ? write_reordered : write_in_order;
      write(slice, source, tensor, buffer, writer);
    });
  }
}

std::vector<safetensors::Shard> shards_of(const std::vector<Source>& sources,
                                          std::int64_t shard_bytes) {
  std::vector<safetensors::TensorInfo> tensors;
  for (const Source& source : sources)
    // The parts of a tensor follow each other.
    if (tensors.empty() || tensors.back().name != source.part->theirs)
      tensors.push_back(
          {.name = source.part->theirs, .type = source.type, .shape = source.part->shape});
  return safetensors::plan_shards(tensors, shard_bytes);
}

std::vector<safetensors::Shard> write_weights(CheckpointReader& reader,
                                              const std::vector<Source>& sources,
                                              const ExportOptions& options,
                                              const std::string& folder, const Report& report) {
  std::int64_t num_elements = 0, num_bytes = 0;
  for (const Source& source : sources) {
    num_elements += source.part->numel;
    num_bytes += source.part->numel * size_of(source.type);
  }
  std::vector<safetensors::Shard> shards = shards_of(sources, options.shard_bytes);
  require_free_space(folder, num_bytes, "the weights");
  ProgressReport progress("exported", num_elements, report);
  auto source = sources.begin();
  for (const safetensors::Shard& shard : shards) {
    safetensors::Writer writer(folder + "/" + shard.file, shard.tensors, {{"format", "pt"}});
    SlicesInFlight slices(largest_slice(sources));  // behind the writer, which it uses
    for (const safetensors::TensorInfo& tensor : writer.tensors())
      for (; source != sources.end() && source->part->theirs == tensor.name; ++source) {
        write_part(reader, *source, tensor, writer, slices);
        progress.add(source->part->numel);
      }
    slices.finish();
    writer.finish();
  }
  return shards;
}

void copy_kept_files(const std::string& checkpoint, const std::string& folder) {
  const std::optional<std::string> kept = kept_in_run_of(checkpoint, kept_folder_name);
  std::error_code error;
  if (!kept || !fs::is_directory(*kept, error)) return;
  for (const fs::directory_entry& entry : fs::directory_iterator(*kept))
    if (entry.is_regular_file() && entry.path().filename() != config_name)
      fs::copy_file(entry.path(), fs::path(folder) / entry.path().filename());
}

bool has_tokenizer(const std::string& folder) {
  return std::ranges::any_of(fs::directory_iterator(folder), [](const fs::directory_entry& entry) {
    const std::string name = entry.path().filename().string();
    return name == "tokenizer.json" || name == "tokenizer.model" || name.ends_with(".tiktoken");
  });
}

// Where none came with the model: that of the run, in the form that others read.
void write_own_tokenizer(const std::optional<KeptTokenizer>& own, const std::string& folder,
                         const Report& report) {
  if (has_tokenizer(folder)) return;
  if (!own) return report("no tokenizer: the run keeps none");
  const Tokenizer::PublishedFile file = own->tokenizer->published_file();
  if (file.name.empty())
    return report(
        fmt::format("no tokenizer: of the run's, \"{}\", there is no file that others read",
                    own->tokenizer->name()));
  write_file_atomically(folder + "/" + file.name, file.content);
}

}  // namespace

Exported export_model(const Config& config, const ExportOptions& options,
                      const std::function<void()>& verified, const Report& report) {
  const std::optional<ConfigJson> kept = kept_json(options.checkpoint, config_name);
  ChosenFamily choice = choose_family(config, options.family, kept);
  const std::optional<KeptTokenizer> own = kept_tokenizer(options.checkpoint);
  add_kept_keys(kept, own, element_type(options.type), choice.json);
  const std::vector<MappedParameter> parameters = map_parameters(*choice.family, config);
  CheckpointReader reader(options.checkpoint);
  const std::vector<Source> sources = sources_of(reader, parameters, element_type(options.type));

  Exported exported;
  exported.family = choice.family->name;
  NewFolder made(options.output);
  with_io_errors([&] {
    const std::string& folder = made.temporary();
    const std::vector<safetensors::Shard> shards =
        write_weights(reader, sources, options, folder, report);
    exported.num_files = shards.size();
    for (const safetensors::Shard& shard : shards)
      exported.num_tensors += std::ssize(shard.tensors);
    for (const Source& source : sources)
      exported.num_bytes += source.part->numel * size_of(source.type);
    if (shards.size() > 1)
      write_file_atomically(folder + "/" + safetensors::index_name,
                            safetensors::index_text(shards));
    write_file_atomically(folder + "/" + config_name, choice.json.dump());
    copy_kept_files(options.checkpoint, folder);
    write_own_tokenizer(own, folder, report);
    if (!fs::exists(folder + "/" + generation_config_name))
      write_file_atomically(folder + "/" + generation_config_name, generation_text(choice.json));
    verified();
    made.publish();
  });
  return exported;
}

}  // namespace switchyard
