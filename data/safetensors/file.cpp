#include "data/safetensors/file.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "data/files/atomic_file.hpp"
#include "data/safetensors/numbers.hpp"
#include "tensor/error.hpp"

namespace switchyard::safetensors {

namespace {

constexpr std::int64_t block_numel = std::int64_t{1} << 16;  // converted at a time, in a cache

std::string made_file(const std::string& path) {
  if (!std::ofstream(path, std::ios::binary | std::ios::trunc))
    throw IoError(fmt::format("{}: cannot be made: {}", path, std::strerror(errno)));
  return path;
}

}  // namespace

File::File(const std::string& path) : path_(path), file_(path, OpenFile::Access::read) {
  const std::int64_t size = file_.size();
  std::string beginning(static_cast<std::size_t>(std::min(size, length_bytes)), '\0');
  file_.read_at(0, beginning.data(), std::ssize(beginning));
  std::string json(static_cast<std::size_t>(header_bytes(beginning, size, path)), '\0');
  file_.read_at(length_bytes, json.data(), std::ssize(json));
  data_begin_ = length_bytes + std::ssize(json);
  header_ = parse_header(json, size - data_begin_, path);
}

void File::read_bytes(const TensorInfo& tensor, std::int64_t begin,
                      std::span<std::byte> out) const {
  expect(begin >= 0 && begin <= tensor.num_bytes() && std::ssize(out) <= tensor.num_bytes() - begin,
         "bytes inside the tensor");
  file_.read_at(data_begin_ + tensor.begin + begin, out.data(), std::ssize(out));
}

void File::read(const TensorInfo& tensor, std::int64_t begin, std::span<float> out) const {
  if (!is_float(tensor.type))
    throw DataError(
        fmt::format("{}: tensor {} has type {}, and weights of F32, BF16, F16, "
                    "F8_E4M3 or F8_E5M2 can be read",
                    path_, tensor.name, name_of(tensor.type)));
  const std::int64_t size = size_of(tensor.type);
  if (tensor.type == ElementType::f32)
    return read_bytes(tensor, begin * size, std::as_writable_bytes(out));
  std::vector<std::byte> block;
  for (std::int64_t at = 0; at < std::ssize(out); at += block_numel) {
    const std::int64_t numel = std::min(block_numel, std::ssize(out) - at);
    block.resize(static_cast<std::size_t>(numel * size));
    read_bytes(tensor, (begin + at) * size, block);
    to_floats(tensor.type, block,
              out.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(numel)));
  }
}

Writer::Writer(std::string path, std::vector<TensorInfo> tensors,
               const std::map<std::string, std::string>& metadata)
    : path_(std::move(path)), file_(made_file(path_)), tensors_(std::move(tensors)) {
  const std::string header = write_header(tensors_, metadata);
  data_begin_ = std::ssize(header);
  missing_ = tensors_.empty() ? 0 : tensors_.back().end;
  if (const int error = file_.reserve(0, data_begin_ + missing_))
    throw IoError(fmt::format("{}: {} bytes are needed, which the system refuses: {}", path_,
                              data_begin_ + missing_, std::strerror(error)));
  write_at(0, std::as_bytes(std::span(header)));
}

void Writer::write_at(std::int64_t begin, std::span<const std::byte> data) {
  if (const int error = file_.write_at(begin, data.data(), std::ssize(data)))
    throw IoError(fmt::format("{}: cannot be written: {}", path_, std::strerror(error)));
  file_.begin_write_back(begin, std::ssize(data));
}

void Writer::write(const TensorInfo& tensor, std::int64_t begin, std::span<const std::byte> data) {
  expect(begin >= 0 && std::ssize(data) <= tensor.num_bytes() - begin, "bytes inside the tensor");
  write_at(data_begin_ + tensor.begin + begin, data);
  missing_ -= std::ssize(data);
}

void Writer::finish() {
  expect(missing_ == 0, "all data of all tensors, once");
  sync_file(path_);
}

}  // namespace switchyard::safetensors
