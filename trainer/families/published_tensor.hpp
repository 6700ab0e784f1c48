// Reads the elements of a published tensor as fp32, whatever it is stored as.
#pragma once

#include <map>
#include <span>
#include <string>

#include "data/safetensors/folder.hpp"

namespace switchyard {

using Places = std::map<std::string, safetensors::Folder::Place, std::less<>>;

// A matrix of 8-bit floats may have scales, one for each block of 128 x 128 elements, in a tensor
// beside it that is named NAME_scale_inv (DeepSeek-V3, README_WEIGHTS.md): an element is its number
// times its block's scale.
class PublishedTensor {
 public:
  static constexpr const char* scale_ending = "_scale_inv";

  // DataError if the scales do not fit. The places must outlive this.
  PublishedTensor(const Places& places, const std::string& name);

  // Elements [begin, begin + out.size()).
  void read(std::int64_t begin, std::span<float> out) const;

 private:
  const safetensors::Folder::Place* values_;
  std::vector<float> scales_;  // row by row; empty: none
  std::int64_t num_cols_ = 1;
};

}  // namespace switchyard
