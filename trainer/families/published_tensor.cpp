#include "trainer/families/published_tensor.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "data/safetensors/numbers.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t block_size = 128;  // rows and columns that share a scale

std::int64_t num_blocks(std::int64_t size) {
  return (size + block_size - 1) / block_size;
}

// Of [E, cols, rows].
std::vector<std::int64_t> blocks_of(const MappedTensor& part) {
  const std::int64_t rows = part.shape[2], cols = part.shape[1];
  if (cols % safetensors::mxfp4_block != 0)
    throw DataError(fmt::format("{}: {} columns are no whole blocks of MXFP4, which have {}",
                                part.theirs, cols, safetensors::mxfp4_block));
  return {part.shape[0], rows, cols / safetensors::mxfp4_block};
}

}  // namespace

void find_packed_tensors(const Places& places, std::vector<MappedParameter>& parameters) {
  for (MappedParameter& parameter : parameters)
    for (MappedTensor& part : parameter.parts)
      if (part.is_transposed && !places.contains(part.theirs) &&
          places.contains(part.theirs + PublishedTensor::packed_ending)) {
        part.is_packed = true;
        part.is_transposed = false;
      }
}

std::vector<std::int64_t> packed_shape(const MappedTensor& part) {
  std::vector<std::int64_t> shape = blocks_of(part);
  shape.push_back(safetensors::mxfp4_block / 2);
  return shape;
}

std::vector<std::int64_t> exponents_shape(const MappedTensor& part) {
  return blocks_of(part);
}

PublishedTensor::PublishedTensor(const Places& places, const std::string& name) {
  const auto plain = places.find(name);
  if (plain == places.end()) {
    values_ = &places.find(name + packed_ending)->second;
    exponents_ = &places.find(name + exponents_ending)->second;
    return;
  }
  values_ = &plain->second;
  const safetensors::TensorInfo& tensor = *values_->tensor;
  if (tensor.type != safetensors::ElementType::f8_e4m3) return;
  const auto scales = places.find(name + scale_ending);
  if (scales == places.end()) return;
  const safetensors::TensorInfo& of_blocks = *scales->second.tensor;
  if (tensor.shape.size() != 2 ||
      of_blocks.shape != std::vector{num_blocks(tensor.shape[0]), num_blocks(tensor.shape[1])})
    throw DataError(fmt::format(
        "{}: tensor {} has shape {}, which is not one scale for each block "
        "of 128 x 128 elements of {}",
        scales->second.file->path(), of_blocks.name, safetensors::shape_text(of_blocks.shape),
        safetensors::shape_text(tensor.shape)));
  num_cols_ = tensor.shape[1];
  scales_.resize(static_cast<std::size_t>(of_blocks.numel()));
  scales->second.file->read(of_blocks, 0, scales_);
}

void PublishedTensor::read_packed(std::int64_t begin, std::span<float> out) const {
  using safetensors::mxfp4_block;
  expect(begin % mxfp4_block == 0 && std::ssize(out) % mxfp4_block == 0, "whole blocks of MXFP4");
  std::vector<std::uint8_t> blocks(out.size() / 2), exponents(out.size() / mxfp4_block);
  values_->file->read_bytes(*values_->tensor, begin / 2, std::as_writable_bytes(std::span(blocks)));
  exponents_->file->read_bytes(*exponents_->tensor, begin / mxfp4_block,
                               std::as_writable_bytes(std::span(exponents)));
  safetensors::mxfp4_to_floats(blocks, exponents, out);
}

void PublishedTensor::read(std::int64_t begin, std::span<float> out) const {
  if (exponents_ != nullptr) return read_packed(begin, out);
  values_->file->read(*values_->tensor, begin, out);
  if (scales_.empty()) return;
  for (std::int64_t at = 0; at < std::ssize(out);) {
    const std::int64_t row = (begin + at) / num_cols_, col = (begin + at) % num_cols_;
    const std::int64_t stretch =
        std::min({block_size - col % block_size, num_cols_ - col, std::ssize(out) - at});
    const float scale = scales_[static_cast<std::size_t>(row / block_size * num_blocks(num_cols_) +
                                                         col / block_size)];
    for (const std::int64_t end = at + stretch; at < end; ++at)
      out[static_cast<std::size_t>(at)] *= scale;
  }
}

}  // namespace switchyard
