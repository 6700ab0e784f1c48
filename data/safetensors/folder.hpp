// The weights of a model: a folder with one safetensors file, or with several and an index that
// says which tensor lies where, as Hugging Face's libraries write them:
//   model.safetensors    or    model-00001-of-00002.safetensors ... and
//   model.safetensors.index.json: {"metadata": {"total_size": bytes}, "weight_map": {name: file}}
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/safetensors/file.hpp"

namespace switchyard::safetensors {

inline constexpr const char* one_file_name = "model.safetensors";
inline constexpr const char* index_name = "model.safetensors.index.json";

class Folder {
 public:
  // Opens all files that the index names, or the one file, or, without both, all *.safetensors.
  // DataError: a file of the index is missing, a tensor is in two files, or not in the file that
  // the index names, or not in the index; IoError.
  explicit Folder(const std::string& path);

  struct Place {
    const File* file = nullptr;
    const TensorInfo* tensor = nullptr;
  };
  // By name.
  const std::map<std::string, Place, std::less<>>& tensors() const { return tensors_; }
  std::int64_t num_bytes() const;  // of all tensors
  std::size_t num_files() const { return files_.size(); }

 private:
  void add(const std::string& file);

  std::string path_;
  std::vector<std::unique_ptr<File>> files_;
  std::map<std::string, Place, std::less<>> tensors_;
};

// Which tensors go into which file, in order: as many as max_bytes holds, at least one.
struct Shard {
  std::string file;
  std::vector<TensorInfo> tensors;
};
std::vector<Shard> plan_shards(const std::vector<TensorInfo>& tensors, std::int64_t max_bytes);
// The text of index_name.
std::string index_text(const std::vector<Shard>& shards);

}  // namespace switchyard::safetensors
