#include "data/safetensors/folder.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"

namespace switchyard::safetensors {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::string_view ending = ".safetensors";

// A file of the folder itself: an index from a stranger leads nowhere else.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.find('/') == std::string::npos && name != "." && name != ".." &&
         name.find('\0') == std::string::npos;
}

std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const auto refuse = [&](const std::string& why) {
    throw DataError(fmt::format("{}: {}; copy or download it again", path, why));
  };
  const Json json = Json::parse(read_file(path, std::int64_t{1} << 28), nullptr, false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    refuse("needs an object with a weight_map");
  std::map<std::string, std::string> map;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!file.is_string() || !is_plain_name(file.get<std::string>()))
      refuse(fmt::format("tensor {} needs the name of a file in the same folder", name));
    map[name] = file.get<std::string>();
  }
  return map;
}

std::vector<std::string> files_without_index(const std::string& folder) {
  if (fs::exists(fs::path(folder) / one_file_name)) return {one_file_name};
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ending) names.push_back(entry.path().filename().string());
  if (error) throw IoError(fmt::format("{}: cannot be read: {}", folder, error.message()));
  std::ranges::sort(names);
  return names;
}

}  // namespace

Folder::Folder(const std::string& path) : path_(path) {
  const std::string index = (fs::path(path) / index_name).string();
  if (!fs::exists(index)) {
    for (const std::string& file : files_without_index(path)) add(file);
    if (files_.empty())
      throw DataError(
          fmt::format("{}: has no *.safetensors file; name the folder that holds "
                      "config.json and the weights",
                      path));
    return;
  }
  const std::map<std::string, std::string> map = read_weight_map(index);
  std::set<std::string> names;
  for (const auto& [tensor, file] : map) names.insert(file);
  for (const std::string& file : names) add(file);
  for (const auto& [tensor, file] : map) {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end() || fs::path(found->second.file->path()).filename() != file)
      throw DataError(
          fmt::format("{}: tensor {} is not in {}, where the index has it; download "
                      "the file again",
                      index, tensor, file));
  }
  for (const auto& [tensor, place] : tensors_)
    if (!map.contains(tensor))
      throw DataError(fmt::format("{}: tensor {} of {} is not in the index; download it again",
                                  index, tensor, place.file->path()));
}

void Folder::add(const std::string& file) {
  const std::string path = (fs::path(path_) / file).string();
  if (!fs::exists(path))
    throw DataError(fmt::format("{}: is missing, and {} names it; download it", path, index_name));
  files_.push_back(std::make_unique<File>(path));
  for (const TensorInfo& tensor : files_.back()->tensors()) {
    const auto [known, is_new] =
        tensors_.try_emplace(tensor.name, Place{files_.back().get(), &tensor});
    if (!is_new)
      throw DataError(
          fmt::format("tensor {} is in {} and in {}; remove the file that does not "
                      "belong there",
                      tensor.name, known->second.file->path(), path));
  }
}

std::int64_t Folder::num_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [name, place] : tensors_) bytes += place.tensor->num_bytes();
  return bytes;
}

std::vector<Shard> plan_shards(const std::vector<TensorInfo>& tensors, std::int64_t max_bytes) {
  std::vector<Shard> shards;
  std::int64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) {
    std::int64_t size = size_of(tensor.type);
    for (const std::int64_t dim : tensor.shape) size *= dim;
    if (shards.empty() || bytes + size > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += size;
    shards.back().tensors.push_back(tensor);
  }
  for (std::size_t i = 0; i < shards.size(); ++i)
    shards[i].file = shards.size() == 1
                         ? std::string(one_file_name)
                         : fmt::format("model-{:05}-of-{:05}{}", i + 1, shards.size(), ending);
  return shards;
}

std::string index_text(const std::vector<Shard>& shards) {
  Json map = Json::object();
  std::int64_t bytes = 0;
  for (const Shard& shard : shards)
    for (const TensorInfo& tensor : shard.tensors) {
      std::int64_t size = size_of(tensor.type);
      for (const std::int64_t dim : tensor.shape) size *= dim;
      bytes += size;
      map[tensor.name] = shard.file;
    }
  return Json{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}.dump(2) + "\n";
}

}  // namespace switchyard::safetensors
