// One safetensors file: reading parts of its tensors, and writing one from its beginning to its
// end. Errors are DataError (what the file holds) and IoError (the file system) with the path.
#pragma once

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

  // The data of all tensors, one after the other, in pieces of any size.
  void write(std::span<const std::byte> data);
  // When all is written: to the disk. InternalError if some is missing.
  void finish();

 private:
  std::string path_;
  OpenFile file_;
  std::int64_t at_ = 0;
  std::int64_t end_ = 0;
};

}  // namespace switchyard::safetensors
