// The header of a safetensors file: which tensors it holds, and where. A file is
//   u64 N (little endian) | N bytes of JSON, an object that begins with '{' | the data
//   {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, "__metadata__": {...}}
// Offsets count from the beginning of the data. Tensors lie row-major, packed, little endian; they
// cover the data without gap and overlap. (huggingface/safetensors, README and tensor.rs; the
// classes of errors below have the names of that library.)
//
// What is read comes from strangers: every number is checked before it is used, and nothing is
// allocated beyond what the text itself takes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/choice.hpp"

namespace switchyard::safetensors {

enum class ElementType : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  i64,
  u64,
  f64
};
// As files write them.
constexpr std::array<std::string_view, 16> choice_names(ElementType) {
  return {"BOOL", "U8",   "I8",  "F8_E4M3", "F8_E5M2", "F8_E8M0", "I16", "U16",
          "F16",  "BF16", "I32", "U32",     "F32",     "I64",     "U64", "F64"};
}
std::int64_t size_of(ElementType type);  // bytes

struct TensorInfo {
  std::string name;
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;  // none: one number; a 0: no element
  std::int64_t begin = 0;           // bytes from the beginning of the data
  std::int64_t end = 0;

  std::int64_t num_bytes() const { return end - begin; }
  std::int64_t numel() const { return num_bytes() / size_of(type); }
};

struct Header {
  std::vector<TensorInfo> tensors;  // ascending by their beginnings
  std::map<std::string, std::string> metadata;
};

inline constexpr std::int64_t length_bytes = 8;                 // of N
inline constexpr std::int64_t most_header_bytes = 100'000'000;  // as the library above has it

// N, of a file of file_bytes bytes that begins with these 8. DataError: HeaderTooSmall,
// HeaderTooLarge, InvalidHeaderLength. path: for messages.
std::int64_t header_bytes(std::string_view beginning, std::int64_t file_bytes,
                          const std::string& path);
// The N bytes, of a file with data_bytes bytes of data. DataError: InvalidHeaderStart,
// InvalidHeaderDeserialization (no JSON of that form, or a name twice), TensorInvalidInfo (shape
// and offsets differ), InvalidOffset (overlap, a hole), MetadataIncompleteBuffer (the data ends
// elsewhere), ValidationOverflow.
Header parse_header(std::string_view json, std::int64_t data_bytes, const std::string& path);

// N and the JSON, padded with spaces so that the data begins at a multiple of 8. begin and end of
// the tensors are set: they follow each other as given.
std::string write_header(std::vector<TensorInfo>& tensors,
                         const std::map<std::string, std::string>& metadata);

// "[2, 3]"
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace switchyard::safetensors
