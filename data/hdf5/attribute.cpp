// Attributes of HDF5 objects: texts of fixed length (texts of variable length are read too, since
// h5py writes them) and 64-bit integers.
#include <fmt/core.h>
#include <hdf5.h>

#include "data/hdf5/check.hpp"

namespace switchyard::hdf5 {

namespace {

constexpr std::int64_t max_attribute_bytes = 60'000;  // HDF5's compact attributes end at 64 KiB

std::string attribute_name(std::string_view object, std::string_view key) {
  return fmt::format("{}@{}", object, key);
}

void create_and_write(std::int64_t object, const std::string& key, std::int64_t type,
                      const void* value, const Call& call) {
  const std::int64_t exists = checked(H5Aexists(object, key.c_str()), call);
  if (exists > 0) checked(H5Adelete(object, key.c_str()), call);
  const Handle<Family::dataspace> space(checked(H5Screate(H5S_SCALAR), call));
  const Handle<Family::attribute> attribute(
      checked(H5Acreate2(object, key.c_str(), type, space.id(), H5P_DEFAULT, H5P_DEFAULT), call));
  checked(H5Awrite(attribute.id(), type, value), call);
}

Handle<Family::attribute> open_scalar(std::int64_t object, const std::string& key,
                                      const Call& call) {
  if (checked(H5Aexists(object, key.c_str()), call) == 0) fail(call, "there is no such attribute");
  Handle<Family::attribute> attribute(checked(H5Aopen(object, key.c_str(), H5P_DEFAULT), call));
  const Handle<Family::dataspace> space(checked(H5Aget_space(attribute.id()), call));
  if (H5Sget_simple_extent_npoints(space.id()) != 1) fail(call, "it is not a single value");
  return attribute;
}

std::string read_variable_text(std::int64_t attribute, std::int64_t type, const Call& call) {
  char* text = nullptr;
  checked(H5Aread(attribute, type, static_cast<void*>(&text)), call);
  std::string value = text == nullptr ? "" : text;
  H5free_memory(text);
  return value;
}

}  // namespace

void write_attribute(std::int64_t object, const std::string& key, std::string_view value,
                     std::string_view file, std::string_view name) {
  const std::string full_name = attribute_name(name, key);
  const Call call{Blame::io, "write attribute", file, full_name};
  expect(static_cast<std::int64_t>(value.size()) <= max_attribute_bytes,
         "a text attribute of at most 60000 bytes; longer texts go into a dataset");
  const Handle<Family::datatype> type(checked(H5Tcopy(H5T_C_S1), call));
  const std::string padded(value.empty() ? std::string(1, '\0') : std::string(value));
  checked(H5Tset_size(type.id(), padded.size()), call);
  checked(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), call);
  checked(H5Tset_cset(type.id(), H5T_CSET_UTF8), call);
  create_and_write(object, key, type.id(), padded.data(), call);
}

void write_attribute(std::int64_t object, const std::string& key, std::int64_t value,
                     std::string_view file, std::string_view name) {
  const std::string full_name = attribute_name(name, key);
  create_and_write(object, key, H5T_STD_I64LE, &value,
                   {Blame::io, "write attribute", file, full_name});
}

bool attribute_exists(std::int64_t object, const std::string& key, std::string_view file,
                      std::string_view name) {
  const std::string full_name = attribute_name(name, key);
  return checked(H5Aexists(object, key.c_str()),
                 {Blame::content, "look for attribute", file, full_name}) > 0;
}

std::string read_string_attribute(std::int64_t object, const std::string& key,
                                  std::string_view file, std::string_view name) {
  const std::string full_name = attribute_name(name, key);
  const Call call{Blame::content, "read attribute", file, full_name};
  const Handle<Family::attribute> attribute = open_scalar(object, key, call);
  const Handle<Family::datatype> type(checked(H5Aget_type(attribute.id()), call));
  if (H5Tget_class(type.id()) != H5T_STRING) fail(call, "it is not a text");
  if (checked(H5Tis_variable_str(type.id()), call) > 0)
    return read_variable_text(attribute.id(), type.id(), call);

  const std::size_t bytes = H5Tget_size(type.id());
  if (bytes > static_cast<std::size_t>(max_attribute_bytes)) fail(call, "its size is not credible");
  std::string value(bytes, '\0');
  checked(H5Aread(attribute.id(), type.id(), value.data()), call);
  value.resize(value.find('\0') == std::string::npos ? bytes : value.find('\0'));
  return value;
}

std::int64_t read_integer_attribute(std::int64_t object, const std::string& key,
                                    std::string_view file, std::string_view name) {
  const std::string full_name = attribute_name(name, key);
  const Call call{Blame::content, "read attribute", file, full_name};
  const Handle<Family::attribute> attribute = open_scalar(object, key, call);
  const Handle<Family::datatype> type(checked(H5Aget_type(attribute.id()), call));
  if (H5Tget_class(type.id()) != H5T_INTEGER) fail(call, "it is not an integer");
  std::int64_t value = 0;
  checked(H5Aread(attribute.id(), H5T_NATIVE_INT64, &value), call);
  return value;
}

}  // namespace switchyard::hdf5
