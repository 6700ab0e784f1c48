// Which part of which published tensor is which part of which parameter: a family's table of names
// (trainer/families/family.hpp) spelled out for one model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/safetensors/header.hpp"
#include "tensor/shape.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/families/family.hpp"

namespace switchyard {

// A published tensor, or a run of its elements, is a run of a parameter's elements. Mostly they are
// in the same order; where rows are not, `row_of` says which row of ours each of theirs is.
struct MappedTensor {
  std::string theirs;
  std::vector<std::int64_t> shape;  // of all of theirs
  std::int64_t their_begin = 0;     // in the flattened tensor
  std::int64_t our_begin = 0;       // in the flattened parameter
  std::int64_t numel = 0;
  std::int64_t num_cols = 1;         // elements of a row
  bool is_transposed = false;        // theirs has its rows as columns; before row_of counts
  std::vector<std::int64_t> row_of;  // empty: the same order
  bool is_packed = false;            // as MXFP4 (trainer/families/published_tensor.hpp)

  bool is_reordered() const { return is_transposed || !row_of.empty(); }
};

// All elements of a part that is reordered.
void to_ours(const MappedTensor& part, std::span<const float> theirs, std::span<float> ours);
// type: F32, F16 or BF16.
void to_theirs(const MappedTensor& part, std::span<const float> ours, safetensors::ElementType type,
               std::span<std::byte> theirs);

struct MappedParameter {
  std::string ours;
  Shape shape;
  ParameterKind kind = ParameterKind::trained;
  std::vector<MappedTensor> parts;  // ascending; they fill the parameter
};

// The text with the number in the place of `mark`.
std::string with_number(std::string_view text, std::string_view mark, std::int64_t number);

// All parameters of the model, in its order. DataError: the family has no name for one.
std::vector<MappedParameter> map_parameters(const Family& family, const Config& config);

}  // namespace switchyard
