#include "trainer/checkpoint/manifest.hpp"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view format_name = "switchyard checkpoint";
// Version 2 has tensors that are cut along an inner dim, or are state. What does without is written
// as version 1.
constexpr int newest_version = 2;
constexpr std::int64_t max_manifest_bytes = std::int64_t{256} << 20;

std::string hex(const XXH128_hash_t& hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string dump(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

std::string hash_of_text(const std::string& text) {
  return hex(XXH3_128bits(text.data(), text.size()));
}

Shape shape_of(const std::vector<std::int64_t>& dims) {
  switch (dims.size()) {
    case 1:
      return {dims[0]};
    case 2:
      return {dims[0], dims[1]};
    case 3:
      return {dims[0], dims[1], dims[2]};
    case 4:
      return {dims[0], dims[1], dims[2], dims[3]};
    default:
      throw CheckpointError(fmt::format("a tensor of {} dims", dims.size()));
  }
}

Json json_of(const SavedTensor& tensor) {
  Json shape = Json::array();
  for (int dim = 0; dim < tensor.shape.num_dims(); ++dim) shape.push_back(tensor.shape[dim]);
  Json ranges = Json::array();
  for (const SavedRange& range : tensor.ranges) {
    ranges.push_back(Json::array({range.rank, range.begin, range.numel}));
    if (range.count == 1) continue;
    ranges.back().push_back(range.count);
    ranges.back().push_back(range.stride);
  }
  return {
      {"name", tensor.name}, {"shape", shape}, {"kind", name_of(tensor.kind)}, {"ranges", ranges}};
}

ParameterKind kind_of(const Json& json) {
  const std::string name = json.value("kind", std::string(name_of(ParameterKind::trained)));
  for (const ParameterKind kind : {ParameterKind::trained, ParameterKind::state})
    if (name == name_of(kind)) return kind;
  throw CheckpointError(fmt::format("a tensor is {}, which this program does not know", name));
}

// Every element of the tensor must be in one range. Its rows are as long as the stride of its
// ranges; it is one row if there is none. Where a range begins, the ranges of that row must lie
// side by side; further down some may have ended, but then the elements do not add up.
void check_ranges(const SavedTensor& tensor) {
  const std::int64_t numel = tensor.shape.numel();
  std::int64_t row_length = numel;
  std::int64_t sum = 0;
  for (const SavedRange& range : tensor.ranges) {
    sum += range.total();
    if (range.count > 1) row_length = range.stride;
  }
  if (sum != numel)
    throw CheckpointError(
        fmt::format("the ranges of {} cover {} of its {} elements", tensor.name, sum, numel));
  const auto refuse = [&] {
    throw CheckpointError(fmt::format("the ranges of {} do not follow each other", tensor.name));
  };
  std::set<std::int64_t> first_rows;
  for (const SavedRange& range : tensor.ranges) {
    const bool inside = range.begin >= 0 && range.numel > 0 && range.count > 0 &&
                        range.begin % row_length + range.numel <= row_length &&
                        range.begin / row_length + range.count <= numel / row_length;
    if (!inside || (range.count > 1 && range.stride != row_length)) refuse();
    first_rows.insert(range.begin / row_length);
  }
  for (const std::int64_t row : first_rows) {
    std::vector<std::pair<std::int64_t, std::int64_t>> columns;
    for (const SavedRange& range : tensor.ranges) {
      const std::int64_t first = range.begin / row_length;
      if (first <= row && row < first + range.count)
        columns.emplace_back(range.begin % row_length, range.numel);
    }
    std::sort(columns.begin(), columns.end());
    std::int64_t end = 0;
    for (const auto& [begin, length] : columns) {
      if (begin != end) refuse();
      end += length;
    }
    if (end != row_length) refuse();
  }
}

SavedTensor tensor_of(const Json& json, int num_ranks) {
  SavedTensor tensor;
  tensor.name = json.at("name").get<std::string>();
  tensor.shape = shape_of(json.at("shape").get<std::vector<std::int64_t>>());
  tensor.kind = kind_of(json);
  for (const Json& entry : json.at("ranges")) {
    SavedRange range{entry.at(0), entry.at(1), entry.at(2)};
    if (entry.size() > 3) {
      range.count = entry.at(3);
      range.stride = entry.at(4);
    }
    if (range.rank < 0 || range.rank >= num_ranks)
      throw CheckpointError(fmt::format("a range of {} is in no rank's file", tensor.name));
    tensor.ranges.push_back(range);
  }
  check_ranges(tensor);
  return tensor;
}

int version_of(const Manifest& manifest) {
  for (const SavedTensor& tensor : manifest.tensors) {
    if (tensor.kind == ParameterKind::state) return 2;
    for (const SavedRange& range : tensor.ranges)
      if (range.count > 1) return 2;
  }
  return 1;
}

Manifest manifest_of(const Json& json) {
  if (json.at("format") != format_name) throw CheckpointError("it is not a checkpoint's manifest");
  if (const int version = json.at("format_version"); version < 1 || version > newest_version)
    throw CheckpointError(fmt::format(
        "its format version is {}; this program reads versions 1 to {}", version, newest_version));
  Json body = json;
  const std::string hash = body.at("hash");
  body.erase("hash");
  if (hash_of_text(dump(body)) != hash) throw CheckpointError("its own hash does not match");

  Manifest manifest;
  manifest.num_ranks = json.at("num_ranks");
  const Json& state = json.at("state");
  manifest.state = {state.at("step"), state.at("num_tokens"), state.at("data_position"),
                    state.at("max_rows"), state.value("earlier_updates", std::int64_t{0})};
  manifest.has_moments = json.value("has_moments", true);
  for (const Json& from : json.value("lineage", Json::array()))
    manifest.lineage.push_back({from.at("path"), from.at("course"), from.at("step"),
                                from.at("num_tokens"), from.at("taken")});
  const Json& layout = json.at("layout");
  manifest.layout.data = layout.at("data");
  manifest.layout.context = layout.at("context");
  manifest.layout.expert = layout.at("expert");
  manifest.configuration = json.at("configuration").get<std::string>();
  manifest.course = json.value("course", std::string());
  if (json.contains("corpus")) {
    const Json& corpus = json.at("corpus");
    manifest.corpus = {corpus.at("path"),
                       corpus.at("train_xxh3"),
                       corpus.at("valid_xxh3"),
                       corpus.at("tokenizer_xxh3"),
                       {}};
    for (const Json& part : corpus.value("mixture", Json::array()))
      manifest.corpus.mixture.push_back({part.at("path"), part.at("train_xxh3")});
  }
  if (json.contains("arithmetic")) {
    const Json& arithmetic = json.at("arithmetic");
    manifest.arithmetic = {arithmetic.at("isa"), arithmetic.at("build_xxh3")};
  }
  for (const Json& file : json.at("files"))
    manifest.files.push_back({file.at("name"), file.at("bytes"), file.at("xxh3_128")});
  for (const Json& tensor : json.at("tensors"))
    manifest.tensors.push_back(tensor_of(tensor, manifest.num_ranks));
  return manifest;
}

}  // namespace

const SavedTensor* Manifest::find(std::string_view name) const {
  for (const SavedTensor& tensor : tensors)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

std::int64_t Manifest::num_elements(ParameterKind kind) const {
  std::int64_t sum = 0;
  for (const SavedTensor& tensor : tensors)
    if (tensor.kind == kind) sum += tensor.shape.numel();
  return sum;
}

std::int64_t Manifest::num_bytes() const {
  std::int64_t sum = 0;
  for (const CheckpointFile& file : files) sum += file.bytes;
  return sum;
}

std::string rank_file_name(int rank) {
  return fmt::format("rank-{:05}.h5", rank);
}

std::string step_folder_name(std::int64_t step) {
  return fmt::format("step-{:08}", step);
}

std::int64_t step_of_folder_name(std::string_view name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix) || name.size() < prefix.size() + 8) return -1;
  std::int64_t step = 0;
  for (const char digit : name.substr(prefix.size())) {
    if (digit < '0' || digit > '9' || step > (std::int64_t{1} << 55)) return -1;
    step = step * 10 + (digit - '0');
  }
  return step;
}

std::vector<std::int64_t> checkpoint_steps_in(const std::string& folder) {
  std::vector<std::int64_t> steps;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none))
    if (const std::int64_t step = step_of_folder_name(entry.path().filename().string()); step >= 0)
      steps.push_back(step);
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

std::int64_t newest_step_in(const std::string& folder) {
  const std::vector<std::int64_t> steps = checkpoint_steps_in(folder);
  return steps.empty() ? 0 : steps.front();
}

std::string to_json(const Manifest& manifest) {
  Json json;
  json["format"] = format_name;
  json["format_version"] = version_of(manifest);
  json["step"] = manifest.state.step;
  json["state"] = {{"step", manifest.state.step},
                   {"num_tokens", manifest.state.num_tokens},
                   {"data_position", manifest.state.data_position},
                   {"max_rows", manifest.state.max_rows}};
  if (manifest.state.earlier_updates > 0)
    json["state"]["earlier_updates"] = manifest.state.earlier_updates;
  if (!manifest.has_moments) json["has_moments"] = false;
  for (const Ancestor& from : manifest.lineage)
    json["lineage"].push_back({{"path", from.path},
                               {"course", from.course},
                               {"step", from.step},
                               {"num_tokens", from.num_tokens},
                               {"taken", from.taken}});
  json["num_ranks"] = manifest.num_ranks;
  json["layout"] = {{"data", manifest.layout.data},
                    {"context", manifest.layout.context},
                    {"expert", manifest.layout.expert}};
  json["configuration"] = manifest.configuration;
  if (!manifest.course.empty()) json["course"] = manifest.course;
  if (manifest.corpus != CorpusRecord{})
    json["corpus"] = {{"path", manifest.corpus.path},
                      {"train_xxh3", manifest.corpus.train},
                      {"valid_xxh3", manifest.corpus.valid},
                      {"tokenizer_xxh3", manifest.corpus.tokenizer}};
  for (const MixedCorpus& part : manifest.corpus.mixture)
    json["corpus"]["mixture"].push_back({{"path", part.path}, {"train_xxh3", part.train}});
  if (manifest.arithmetic != ArithmeticRecord{})
    json["arithmetic"] = {{"isa", manifest.arithmetic.isa},
                          {"build_xxh3", manifest.arithmetic.build}};
  json["files"] = Json::array();
  for (const CheckpointFile& file : manifest.files)
    json["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3_128", file.hash}});
  json["tensors"] = Json::array();
  for (const SavedTensor& tensor : manifest.tensors) json["tensors"].push_back(json_of(tensor));
  // Read back first: bytes that are no UTF-8 (a path, say) were replaced, and the hash is of that.
  json = Json::parse(dump(json));
  json["hash"] = hash_of_text(dump(json));
  return dump(json) + "\n";
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  try {
    return manifest_of(Json::parse(text));
  } catch (const CheckpointError& error) {
    throw CheckpointError(fmt::format("{}: {}", path, error.what()));
  } catch (const Json::parse_error& error) {
    throw CheckpointError(fmt::format("{}: not JSON from byte {} on", path, error.byte));
  } catch (const Json::exception& error) {
    throw CheckpointError(
        fmt::format("{}: a field is missing or strange ({})", path, error.what()));
  }
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + manifest_name;
  std::string text;
  try {
    text = read_file(path, max_manifest_bytes);
  } catch (const IoError& error) {
    throw CheckpointError(fmt::format("{} cannot be read: {}", path, error.what()));
  }
  return parse_manifest(text, path);
}

std::string course_of_checkpoint(const std::string& folder) {
  try {
    return read_manifest(folder).course;
  } catch (const CheckpointError&) {
    return {};
  }
}

std::string hash_of_file(const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (!file) throw IoError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  const std::unique_ptr<XXH3_state_t, Free> state(XXH3_createState());
  expect(state != nullptr, "memory for a hash");
  XXH3_128bits_reset(state.get());
  std::vector<unsigned char> block(std::size_t{256} << 10);  // stays in a cache while it is hashed
  std::size_t count = 0;
  while ((count = std::fread(block.data(), 1, block.size(), file.get())) > 0)
    XXH3_128bits_update(state.get(), block.data(), count);
  if (std::ferror(file.get()) != 0)
    throw IoError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  return hex(XXH3_128bits_digest(state.get()));
}

}  // namespace switchyard
