// Reads the elements of a published tensor as fp32, whatever it is stored as.
#pragma once

#include <map>
#include <span>
#include <string>

#include "data/safetensors/folder.hpp"
#include "trainer/families/tensor_map.hpp"

namespace switchyard {

using Places = std::map<std::string, safetensors::Folder::Place, std::less<>>;

// A matrix of 8-bit floats may have scales, one for each block of 128 x 128 elements, in a tensor
// beside it that is named NAME_scale_inv (DeepSeek-V3, README_WEIGHTS.md): an element is its number
// times its block's scale.
//
// Matrices of experts, [E, cols, rows] by their name, may come as MXFP4 (gpt-oss): NAME_blocks, u8
// [E, rows, cols / 32, 16] with two numbers a byte, and NAME_scales, u8 [E, rows, cols / 32] with
// an exponent for each 32 of them. Then an expert's rows are in the order of ours.
class PublishedTensor {
 public:
  static constexpr const char* scale_ending = "_scale_inv";
  static constexpr const char* packed_ending = "_blocks";
  static constexpr const char* exponents_ending = "_scales";

  // DataError if the scales do not fit. The places must outlive this.
  PublishedTensor(const Places& places, const std::string& name);

  // Elements [begin, begin + out.size()); of MXFP4 whole blocks of 32.
  void read(std::int64_t begin, std::span<float> out) const;

 private:
  void read_packed(std::int64_t begin, std::span<float> out) const;

  const safetensors::Folder::Place* exponents_ = nullptr;  // of MXFP4
  const safetensors::Folder::Place* values_;
  std::vector<float> scales_;  // row by row; empty: none
  std::int64_t num_cols_ = 1;
};

// Parts of stacked experts whose tensors lie there as MXFP4 become parts of those.
void find_packed_tensors(const Places& places, std::vector<MappedParameter>& parameters);
// The shapes of NAME_blocks and NAME_scales.
std::vector<std::int64_t> packed_shape(const MappedTensor& part);
std::vector<std::int64_t> exponents_shape(const MappedTensor& part);

}  // namespace switchyard
