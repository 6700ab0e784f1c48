#include "trainer/families/published_tensor.hpp"

#include <fmt/core.h>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t block_size = 128;  // rows and columns that share a scale

std::int64_t num_blocks(std::int64_t size) {
  return (size + block_size - 1) / block_size;
}

}  // namespace

PublishedTensor::PublishedTensor(const Places& places, const std::string& name)
    : values_(&places.find(name)->second) {
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

void PublishedTensor::read(std::int64_t begin, std::span<float> out) const {
  values_->file->read(*values_->tensor, begin, out);
  if (scales_.empty()) return;
  std::int64_t row = begin / num_cols_, col = begin % num_cols_;
  for (float& value : out) {
    value *= scales_[static_cast<std::size_t>(row / block_size * num_blocks(num_cols_) +
                                              col / block_size)];
    if (++col < num_cols_) continue;
    col = 0;
    ++row;
  }
}

}  // namespace switchyard
