#include "data/hdf5/handle.hpp"

#include <fmt/format.h>
#include <hdf5.h>

#include <bit>
#include <vector>

#include "data/hdf5/check.hpp"

namespace switchyard::hdf5 {

static_assert(sizeof(hid_t) == sizeof(std::int64_t));
static_assert(std::endian::native == std::endian::little, "files and memory are little-endian");

namespace {

// Collects the descriptions on the error stack, most specific first.
herr_t collect_reason(unsigned, const H5E_error2_t* error, void* reasons) {
  if (error->desc != nullptr && *error->desc != '\0')
    static_cast<std::vector<std::string>*>(reasons)->push_back(error->desc);
  return 0;
}

}  // namespace

bool close_identifier(Family family, std::int64_t id) noexcept {
  switch (family) {
    case Family::file:
      return H5Fclose(id) >= 0;
    case Family::group:
      return H5Gclose(id) >= 0;
    case Family::dataset:
      return H5Dclose(id) >= 0;
    case Family::dataspace:
      return H5Sclose(id) >= 0;
    case Family::datatype:
      return H5Tclose(id) >= 0;
    case Family::property_list:
      return H5Pclose(id) >= 0;
    case Family::attribute:
      return H5Aclose(id) >= 0;
    case Family::object:
      return H5Oclose(id) >= 0;
  }
  return false;
}

void fail(const Call& call, std::string_view reason) {
  const std::string message =
      call.object.empty()
          ? fmt::format("{}: cannot {}: {}", call.file, call.verb, reason)
          : fmt::format("{}: cannot {} {}: {}", call.file, call.verb, call.object, reason);
  if (call.blame == Blame::io) throw IoError(message);
  throw DataError(message);
}

std::string reasons_on_stack() {
  constexpr std::size_t most = 3;  // the outer ones only repeat the name of the call
  std::vector<std::string> reasons;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect_reason, &reasons);
  H5Eclear2(H5E_DEFAULT);
  if (reasons.size() > most) reasons.resize(most);
  return reasons.empty() ? "HDF5 gives no reason" : fmt::format("{}", fmt::join(reasons, "; "));
}

std::int64_t checked(std::int64_t result, const Call& call) {
  if (result < 0) fail(call, reasons_on_stack());
  return result;
}

void start_library() {
  // A file whose last writes failed (a full disk) stays half-closed, and HDF5's clean-up at exit
  // crashes on it (1.10.8), which would replace our exit code. Our handles close everything.
  H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

std::int64_t memory_type(ElementType type) {
  return stored_type(type);
}

std::int64_t stored_type(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return H5T_IEEE_F32LE;
    case ElementType::f64:
      return H5T_IEEE_F64LE;
    case ElementType::i32:
      return H5T_STD_I32LE;
    case ElementType::i64:
      return H5T_STD_I64LE;
    case ElementType::u8:
      return H5T_STD_U8LE;
    case ElementType::u16:
      return H5T_STD_U16LE;
    case ElementType::u64:
      return H5T_STD_U64LE;
  }
  throw InternalError("unknown element type");
}

ElementType element_type_of_datatype(std::int64_t datatype, const Call& call) {
  const std::size_t bytes = H5Tget_size(datatype);
  const H5T_class_t family = H5Tget_class(datatype);
  if (family == H5T_FLOAT && bytes == 4) return ElementType::f32;
  if (family == H5T_FLOAT && bytes == 8) return ElementType::f64;
  if (family == H5T_INTEGER) {
    const bool is_signed = H5Tget_sign(datatype) == H5T_SGN_2;
    if (is_signed && bytes == 4) return ElementType::i32;
    if (is_signed && bytes == 8) return ElementType::i64;
    if (!is_signed && bytes == 1) return ElementType::u8;
    if (!is_signed && bytes == 2) return ElementType::u16;
    if (!is_signed && bytes == 8) return ElementType::u64;
  }
  fail(call, fmt::format("its element type ({} bytes) is none of f32, f64, i32, i64, u8, u16, u64",
                         bytes));
}

std::int64_t size_of(ElementType type) {
  switch (type) {
    case ElementType::f64:
    case ElementType::i64:
    case ElementType::u64:
      return 8;
    case ElementType::f32:
    case ElementType::i32:
      return 4;
    case ElementType::u16:
      return 2;
    case ElementType::u8:
      return 1;
  }
  return 0;
}

std::string_view name_of(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return "f32";
    case ElementType::f64:
      return "f64";
    case ElementType::i32:
      return "i32";
    case ElementType::i64:
      return "i64";
    case ElementType::u8:
      return "u8";
    case ElementType::u16:
      return "u16";
    case ElementType::u64:
      return "u64";
  }
  return "?";
}

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ElementType::f32;
    case DType::f64:
      return ElementType::f64;
    case DType::bf16:
      return ElementType::u16;
    case DType::i32:
      return ElementType::i32;
    case DType::i64:
      return ElementType::i64;
    case DType::u8:
      return ElementType::u8;
  }
  throw InternalError("unknown dtype");
}

}  // namespace switchyard::hdf5
