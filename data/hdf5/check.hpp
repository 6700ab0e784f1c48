// Checks of HDF5 calls, private to data/*.cpp: turns HDF5's error stack into one exception, and
// element types into HDF5's identifiers. HDF5's negative results mean failure in every call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/hdf5/handle.hpp"
#include "data/hdf5/hdf5.hpp"

namespace switchyard::hdf5 {

// Whose fault a failure is: the file system's (IoError) or the content's (DataError).
enum class Blame : std::uint8_t { io, content };

// What is being done to what, for messages: "cannot read dataset /train/tokens of corpus.h5".
struct Call {
  Blame blame;
  std::string_view verb;  // "read dataset"
  std::string_view file;
  std::string_view object = {};
};

[[noreturn]] void fail(const Call& call, std::string_view reason);
// What HDF5's error stack tells, which is emptied.
std::string reasons_on_stack();
// Fails with the reasons on HDF5's error stack when `result` is negative, else returns it.
std::int64_t checked(std::int64_t result, const Call& call);

// Called before a file is opened or created: HDF5 shall neither print its errors nor run at exit.
void start_library();

std::int64_t memory_type(ElementType type);  // borrowed identifiers
std::int64_t stored_type(ElementType type);  // little-endian
// DataError for anything but the plain numbers of ElementType.
ElementType element_type_of_datatype(std::int64_t datatype, const Call& call);

// Creates the groups that `name` lies in, where they are missing. (HDF5 can do so by itself, but
// then stores the time of day in them, and equal contents would not give equal files.)
void create_groups_above(std::int64_t file, const std::string& name, const Call& call);

// Attributes of an open object (a file, group or dataset identifier).
void write_attribute(std::int64_t object, const std::string& key, std::string_view value,
                     std::string_view file, std::string_view name);
void write_attribute(std::int64_t object, const std::string& key, std::int64_t value,
                     std::string_view file, std::string_view name);
bool attribute_exists(std::int64_t object, const std::string& key, std::string_view file,
                      std::string_view name);
std::string read_string_attribute(std::int64_t object, const std::string& key,
                                  std::string_view file, std::string_view name);
std::int64_t read_integer_attribute(std::int64_t object, const std::string& key,
                                    std::string_view file, std::string_view name);

}  // namespace switchyard::hdf5
