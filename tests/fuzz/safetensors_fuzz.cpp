// Any bytes as a whole safetensors file. Either the reader refuses them with a
// DataError, or what it gives covers the data without gap and overlap.
#include <cstdlib>

#include "data/safetensors/header.hpp"
#include "tensor/error.hpp"
#include "tests/fuzz/fuzz_target.hpp"

namespace {

using switchyard::safetensors::Header;
using switchyard::safetensors::TensorInfo;

void check(const Header& header, std::int64_t data_bytes) {
  std::int64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.begin != end || tensor.end < tensor.begin) std::abort();
    std::int64_t numel = 1;
    for (const std::int64_t dim : tensor.shape) numel *= dim;
    if (numel != tensor.numel()) std::abort();
    end = tensor.end;
  }
  if (end != data_bytes) std::abort();
}

}  // namespace

std::vector<std::string> switchyard::fuzz::seeds() {
  using switchyard::safetensors::ElementType;
  std::vector<TensorInfo> tensors = {{.name = "a", .type = ElementType::f32, .shape = {2, 3}},
                                     {.name = "b.weight", .type = ElementType::bf16, .shape = {4}},
                                     {.name = "empty", .type = ElementType::i64, .shape = {0, 5}}};
  std::vector<TensorInfo> none;
  std::string file = safetensors::write_header(tensors, {{"format", "pt"}});
  file.resize(file.size() + static_cast<std::size_t>(tensors.back().end));
  return {file, safetensors::write_header(none, {})};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto file_bytes = static_cast<std::int64_t>(size);
  try {
    const std::int64_t length = switchyard::safetensors::header_bytes(file, file_bytes, "fuzz");
    const std::int64_t data_bytes = file_bytes - 8 - length;
    check(switchyard::safetensors::parse_header(file.substr(8, static_cast<std::size_t>(length)),
                                                data_bytes, "fuzz"),
          data_bytes);
  } catch (const switchyard::DataError&) {
  }
  return 0;
}
