#include "trainer/families/import.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "data/files/atomic_file.hpp"
#include "data/safetensors/folder.hpp"
#include "data/safetensors/numbers.hpp"
#include "data/tokenizer.hpp"
#include "tensor/error.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"
#include "trainer/checkpoint/weights_writer.hpp"
#include "trainer/families/kept_files.hpp"
#include "trainer/families/new_folder.hpp"
#include "trainer/families/progress_report.hpp"
#include "trainer/families/published_tensor.hpp"
#include "trainer/families/slices_in_flight.hpp"
#include "trainer/families/tensor_map.hpp"
#include "trainer/run/run_marker.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t block_numel = 1 << 20;  // elements of a slice in memory
constexpr const char* tied_head = "lm_head.weight";
// Of config.json: no logit depends on them.
constexpr std::string_view keys_of_no_concern[] = {
    "architectures",  "attention_dropout",    "bos_token_id", "dtype",     "eos_token_id",
    "pad_token_id",   "output_router_logits", "torch_dtype",  "use_cache", "transformers_version",
    "pretraining_tp", "_name_or_path",        "auto_map"};

// `*` stands for anything.
bool matches(std::string_view name, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name == pattern;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  const std::string_view rest = pattern.substr(star + 1);
  for (std::size_t at = star; at <= name.size(); ++at)
    if (matches(name.substr(at), rest)) return true;
  return false;
}

std::string reason_to_skip(const Family& family, const Config& config, std::string_view name) {
  if (config.model.tie_embeddings && name == tied_head)
    return "tie_word_embeddings: the embedding is the head";
  for (const Family::Skipped& skipped : family.skipped)
    if (matches(name, with_number(skipped.pattern, "{n}", config.model.num_layers)))
      return std::string(skipped.reason);
  return {};
}

// What is wrong with the tensors of a folder, all of it, and what is skipped.
class TensorCheck {
 public:
  TensorCheck(const Places& places, const Nearest& nearest) : places_(places), nearest_(nearest) {}

  void check(const std::vector<MappedParameter>& parameters, const Family& family,
             const Config& config, const Report& report) {
    std::vector<const MappedTensor*> missing;
    for (const MappedParameter& parameter : parameters)
      for (const MappedTensor& part : parameter.parts) {
        if (!used_.insert(part.theirs).second) continue;  // a tensor of several parts
        const auto place = places_.find(part.theirs);
        if (part.is_packed)
          check_packed(part);
        else if (place == places_.end())
          missing.push_back(&part);
        else
          check_numbers(place->second, part.shape);
      }
    find_unknown(family, config, report);
    for (const MappedTensor* part : missing)
      blame(fmt::format("tensor {} {} is missing{}", part->theirs,
                        safetensors::shape_text(part->shape), suggestion(part->theirs, unknown_)));
    std::vector<std::string_view> names;
    for (const MappedTensor* part : missing) names.push_back(part->theirs);
    for (const std::string_view name : unknown_)
      blame(fmt::format("tensor {} is unknown to family {}{}", name, family.name,
                        suggestion(name, names)));
    if (mistakes_ > 0)
      throw DataError(
          fmt::format("{}{}", text_,
                      mistakes_ > most_told
                          ? fmt::format("\n... and {} more of the kind", mistakes_ - most_told)
                          : ""));
  }

 private:
  static constexpr int most_told = 20;

  void blame(const std::string& mistake) {
    if (++mistakes_ <= most_told) text_ += (text_.empty() ? "" : "\n") + mistake;
  }

  std::string suggestion(std::string_view name,
                         std::span<const std::string_view> candidates) const {
    const std::optional<std::string> near = nearest_(name, candidates);
    return near ? fmt::format("; the nearest is {}", *near) : "";
  }

  void check_shape(const safetensors::Folder::Place& place,
                   const std::vector<std::int64_t>& expected) {
    if (place.tensor->shape != expected)
      blame(fmt::format("{}: tensor {} has shape {}, and by config.json it should have {}",
                        place.file->path(), place.tensor->name,
                        safetensors::shape_text(place.tensor->shape),
                        safetensors::shape_text(expected)));
  }

  void check_numbers(const safetensors::Folder::Place& place,
                     const std::vector<std::int64_t>& expected) {
    const safetensors::TensorInfo& tensor = *place.tensor;
    if (!safetensors::is_float(tensor.type))
      return blame(
          fmt::format("{}: tensor {} has type {}, and weights of F32, BF16, F16, F8_E4M3 or "
                      "F8_E5M2 can be read",
                      place.file->path(), tensor.name, name_of(tensor.type)));
    check_shape(place, expected);
    if (tensor.type != safetensors::ElementType::f8_e4m3 || tensor.shape.size() != 2) return;
    const std::string scales = tensor.name + PublishedTensor::scale_ending;
    used_.insert(scales);
    if (!places_.contains(scales))
      blame(fmt::format("tensor {} is missing: {} is of type F8_E4M3, whose blocks have scales",
                        scales, tensor.name));
  }

  void check_packed(const MappedTensor& part) {
    const std::string blocks = part.theirs + PublishedTensor::packed_ending;
    const std::string exponents = part.theirs + PublishedTensor::exponents_ending;
    used_.insert(blocks);
    used_.insert(exponents);
    for (const auto& [name, shape] :
         {std::pair(blocks, packed_shape(part)), std::pair(exponents, exponents_shape(part))}) {
      const auto place = places_.find(name);
      if (place == places_.end())
        blame(fmt::format("tensor {} {} is missing", name, safetensors::shape_text(shape)));
      else if (place->second.tensor->type != safetensors::ElementType::u8)
        blame(fmt::format("{}: tensor {} is MXFP4 by its name, and not of type U8",
                          place->second.file->path(), name));
      else
        check_shape(place->second, shape);
    }
  }

  void find_unknown(const Family& family, const Config& config, const Report& report) {
    std::map<std::string, std::int64_t> skipped;  // how many, by reason
    for (const auto& [name, place] : places_) {
      if (used_.contains(name)) continue;
      const std::string reason = reason_to_skip(family, config, name);
      if (reason.empty())
        unknown_.push_back(name);
      else if (++skipped[reason] <= most_told)
        report(fmt::format("skipped: {} ({})", name, reason));
    }
    for (const auto& [reason, number] : skipped)
      if (number > most_told)
        report(fmt::format("skipped: {} more ({})", number - most_told, reason));
  }

  const Places& places_;
  const Nearest& nearest_;
  std::set<std::string, std::less<>> used_;
  std::vector<std::string_view> unknown_;
  std::string text_;
  int mistakes_ = 0;
};

// Elements of a slice: all of a part whose rows are not in our order.
std::int64_t slice_numel(const MappedTensor& part) {
  return part.is_reordered() ? part.numel : std::min(part.numel, block_numel);
}

std::int64_t largest_slice(const std::vector<MappedParameter>& parameters) {
  std::int64_t bytes = 0;
  for (const MappedParameter& parameter : parameters)
    for (const MappedTensor& part : parameter.parts)
      bytes = std::max(
          bytes, slice_numel(part) * std::int64_t{sizeof(float)} * (part.is_reordered() ? 2 : 1));
  return bytes;
}

std::span<float> ours_of(const MappedTensor& part, SliceBuffer& slice) {
  return part.is_reordered() ? slice.reordered : slice.numbers;
}

// What a thread does: elements [at, at + numel) of the part, in our order. whole: elements of the
// parameter.
void read_slice(const PublishedTensor& tensor, const MappedTensor& part, std::int64_t whole,
                std::int64_t at, std::int64_t numel, SliceBuffer& slice) {
  slice.numbers.resize(static_cast<std::size_t>(numel));
  tensor.read(part.their_begin + at, slice.numbers);
  if (part.is_reordered()) {
    slice.reordered.resize(slice.numbers.size());
    to_ours(part, slice.numbers, slice.reordered);
  }
  slice.checksums = WeightsWriter::checksums_of(whole, part.our_begin + at, ours_of(part, slice));
}

void copy_part(const MappedTensor& part, std::int64_t whole, const Places& places,
               WeightsWriter& writer, SlicesInFlight& slices) {
  const auto tensor = std::make_shared<const PublishedTensor>(places, part.theirs);
  const std::int64_t step = slice_numel(part);
  for (std::int64_t at = 0; at < part.numel; at += step) {
    SliceBuffer& slice = slices.take();
    const std::int64_t numel = std::min(step, part.numel - at);
    slices.begin([&slice, &part, tensor, whole, at,
                  numel] { read_slice(*tensor, part, whole, at, numel, slice); },
                 [&slice, &part, &writer] { writer.write(ours_of(part, slice), slice.checksums); });
  }
}

void copy_weights(const std::vector<MappedParameter>& parameters, const Places& places,
                  WeightsWriter& writer, ProgressReport& progress) {
  SlicesInFlight slices(largest_slice(parameters));
  for (const MappedParameter& parameter : parameters)
    for (const MappedTensor& part : parameter.parts) {
      copy_part(part, parameter.shape.numel(), places, writer, slices);
      progress.add(part.numel);
    }
  slices.finish();
}

// What the model came with beside its weights.
void keep_other_files(const std::string& source, const std::string& kept) {
  fs::create_directories(kept);
  for (const fs::directory_entry& entry : fs::directory_iterator(source)) {
    const std::string name = entry.path().filename().string();
    constexpr std::string_view endings[] = {".json", ".model", ".txt", ".jinja", ".tiktoken"};
    const bool is_kept =
        name != safetensors::index_name && entry.is_regular_file() &&
        std::ranges::any_of(endings, [&](std::string_view end) { return name.ends_with(end); });
    if (is_kept) fs::copy_file(entry.path(), fs::path(kept) / name);
  }
}

// The tokenizer becomes the run's, so that `generate` and a corpus made with it need no other file.
void keep_own_tokenizer(const std::string& source, const std::string& folder,
                        const Report& report) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    const std::string path = (fs::path(source) / name).string();
    if (!fs::exists(path)) continue;
    try {
      return keep_tokenizer(folder, *make_tokenizer(path));
    } catch (const Error& error) {
      report(fmt::format("the tokenizer cannot be read, and the run is without one: {}",
                         error.what()));
    }
  }
}

SaveRequest request_of(const ImportOptions& options, const std::string& folder) {
  SaveRequest request;
  request.folder = folder + "/checkpoints";
  request.configuration = options.configuration;
  request.lineage = {
      {fs::absolute(options.source).lexically_normal().string(), "", 0, 0, "weights, imported"}};
  return request;
}

}  // namespace

PublishedModel read_published_model(const std::string& folder) {
  const std::string path = (fs::path(folder) / "config.json").string();
  if (!fs::exists(path))
    throw DataError(
        fmt::format("{}: is missing; name the folder that holds config.json and the "
                    "weights (*.safetensors)",
                    path));
  const ConfigJson json(read_file(path, std::int64_t{1} << 24), path);
  const ConfigJson quantization = json.object("quantization_config");
  if (const std::string method = quantization.text("quant_method", std::string("fp8"));
      method != "fp8" && method != "mxfp4")
    quantization.refuse("quant_method",
                        "of quantized weights only fp8 in blocks and mxfp4 can be read");
  if (const std::vector<std::int64_t> block = quantization.integers("weight_block_size");
      !block.empty() && block != std::vector<std::int64_t>{128, 128})
    quantization.refuse("weight_block_size", "blocks of 128 x 128 elements can be read");
  PublishedModel model;
  model.family = &family_of(json.text("model_type"));
  model.family->read(json, model.config);
  model.unread_keys = json.unread_keys();
  std::erase_if(model.unread_keys, [](const std::string& key) {
    return std::ranges::find(keys_of_no_concern, key) != std::end(keys_of_no_concern);
  });
  return model;
}

Imported import_model(const Family& family, const Config& config, const ImportOptions& options,
                      const Nearest& nearest, const Report& report) {
  const safetensors::Folder folder(options.source);
  std::vector<MappedParameter> parameters = map_parameters(family, config);
  find_packed_tensors(folder.tensors(), parameters);
  TensorCheck(folder.tensors(), nearest).check(parameters, family, config, report);

  Imported imported;
  imported.num_bytes = folder.num_bytes();
  std::vector<SavedTensor> tensors;
  std::int64_t num_elements = 0;
  for (const MappedParameter& parameter : parameters) {
    tensors.push_back({parameter.ours, parameter.shape, parameter.kind, {}});
    imported.num_tensors += std::ssize(parameter.parts);
    num_elements += parameter.shape.numel();
  }
  NewFolder made(options.output);
  with_io_errors([&] {
    WeightsWriter writer(request_of(options, made.temporary()), std::move(tensors));
    ProgressReport progress("imported", num_elements, report);
    copy_weights(parameters, folder.tensors(), writer, progress);
    const std::string checkpoint = writer.finish().path;
    imported.checkpoint = options.output + checkpoint.substr(made.temporary().size());
    write_file_atomically(made.temporary() + "/config.yaml", options.configuration);
    keep_other_files(options.source, made.temporary() + "/" + kept_folder_name);
    keep_own_tokenizer(options.source, made.temporary(), report);
    write_run_marker(made.temporary(), {});
    made.publish();
  });
  return imported;
}

}  // namespace switchyard
