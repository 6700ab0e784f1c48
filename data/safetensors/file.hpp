// One safetensors file: reading parts of its tensors, and writing one from its beginning to its
// end. Errors are DataError (what the file holds) and IoError (the file system) with the path.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/open_file.hpp"
#include "data/safetensors/header.hpp"

namespace switchyard::safetensors {

class File {
 public:
  // Reads and checks the header; the data stays where it is.
  explicit File(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

  // Bytes [begin, begin + out.size()) of the tensor.
  void read_bytes(const TensorInfo& tensor, std::int64_t begin, std::span<std::byte> out) const;
  // Elements [begin, begin + out.size()) of a tensor of floats, as fp32. DataError for other types.
  void read(const TensorInfo& tensor, std::int64_t begin, std::span<float> out) const;

 private:
  std::string path_;
  OpenFile file_;
  Header header_;
  std::int64_t data_begin_ = 0;
};

class Writer {
 public:
  // Makes the file, for these tensors in this order; their offsets are set here.
  Writer(std::string path, std::vector<TensorInfo> tensors,
         const std::map<std::string, std::string>& metadata);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  // Bytes of a tensor from `begin` on. In any order, on any thread; every byte once.
  void write(const TensorInfo& tensor, std::int64_t begin, std::span<const std::byte> data);
  // When all is written: to the disk. InternalError if some is missing.
  void finish();

 private:
  void write_at(std::int64_t begin, std::span<const std::byte> data);

  std::string path_;
  OpenFile file_;
  std::vector<TensorInfo> tensors_;
  std::int64_t data_begin_ = 0;
  std::atomic<std::int64_t> missing_ = 0;  // bytes
};

}  // namespace switchyard::safetensors
