// HDF5 files and datasets: the one wrapper of the HDF5 C API. Every call is checked; an error is an
// IoError (the file system) or a DataError (what the file holds) that names the file, the object
// and the reasons from HDF5's own error stack, and nothing is printed on stderr. Files are written
// in the latest format, whose metadata carries checksums; chunked datasets carry Fletcher32.
//
// After a write that failed (a full disk) HDF5 1.10 keeps half-closed objects: end the process in
// an orderly way and do not write another file.
//
// HDF5 is not thread-safe here: one thread of a process uses this header. A Dataset must not
// outlive its File's close_synced(). Element types are little-endian in files and in memory.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/hdf5/handle.hpp"
#include "tensor/dtype.hpp"
#include "tensor/error.hpp"
#include "tensor/shape.hpp"

namespace switchyard::hdf5 {

// What a dataset stores. bf16 is stored as its bits in u16 (HDF5 1.10 has no such type); whoever
// writes it marks the dataset with an attribute.
enum class ElementType : std::uint8_t { f32, f64, i32, i64, u8, u16, u64 };
std::int64_t size_of(ElementType type);
std::string_view name_of(ElementType type);
ElementType element_type(DType dtype);  // bf16 gives u16

template <class T>
constexpr ElementType element_type_of();
template <>
constexpr ElementType element_type_of<float>() {
  return ElementType::f32;
}
template <>
constexpr ElementType element_type_of<double>() {
  return ElementType::f64;
}
template <>
constexpr ElementType element_type_of<std::int32_t>() {
  return ElementType::i32;
}
template <>
constexpr ElementType element_type_of<std::int64_t>() {
  return ElementType::i64;
}
template <>
constexpr ElementType element_type_of<std::uint8_t>() {
  return ElementType::u8;
}
template <>
constexpr ElementType element_type_of<std::uint16_t>() {
  return ElementType::u16;
}
template <>
constexpr ElementType element_type_of<std::uint64_t>() {
  return ElementType::u64;
}

// A rectangular part of a dataset: `count[dim]` elements from `begin[dim]` on, in every dim.
struct Box {
  std::array<std::int64_t, Shape::max_dims> begin{};
  std::array<std::int64_t, Shape::max_dims> count{};
  int num_dims = 0;

  static Box whole(const Shape& shape);
  // Rows [first, first + num_rows) of dim 0, everything of the other dims.
  static Box rows(const Shape& shape, std::int64_t first, std::int64_t num_rows);
  std::int64_t numel() const;
};

enum class Layout : std::uint8_t {
  chunked,     // Fletcher32 on every chunk; a flipped bit is found on read
  contiguous,  // one run of bytes in the file, which can be memory-mapped; no checksum of its own
};

struct DatasetOptions {
  Layout layout = Layout::chunked;
  std::int64_t chunk_bytes = 1 << 20;  // largest chunk; whole rows where they fit
  int deflate = 0;                     // 0 off, 1 ... 9 zlib's levels (chunked only)
  // Shuffle before deflate and no Fletcher32: what write_chunk() takes
  // (data/chunk_compression.hpp).
  bool shuffle = false;
};

// Recipe of a dataset that shows parts of datasets in other files as one tensor.
class VirtualDataset {
 public:
  VirtualDataset(Shape shape, ElementType type) : shape_(shape), type_(type) {}
  // `destination` of the global tensor is `source` (same numel) of dataset `source_name`, of shape
  // `source_shape`, in `source_file`: a path relative to the folder of the file that will hold the
  // virtual dataset. A missing source file reads as zeros without an error: that is HDF5's
  // behaviour, so check that the sources exist before a read.
  void map(std::string source_file, std::string source_name, const Shape& source_shape,
           const Box& source, const Box& destination);

  struct Mapping {
    std::string source_file;
    std::string source_name;
    Shape source_shape;
    Box source;
    Box destination;
  };
  const Shape& shape() const { return shape_; }
  ElementType type() const { return type_; }
  const std::vector<Mapping>& mappings() const { return mappings_; }

 private:
  Shape shape_;
  ElementType type_;
  std::vector<Mapping> mappings_;
};

class Dataset {
 public:
  Dataset() = default;                               // none; assign one, or assign {} to close
  const std::string& name() const { return name_; }  // full path inside the file
  const Shape& shape() const { return shape_; }
  ElementType type() const { return type_; }
  bool is_virtual() const { return is_virtual_; }

  // A write reaches the operating system before it returns, so boxes of whole chunks are quickest.
  // `data` holds box.numel() (or shape().numel()) elements of type(), dense, row-major.
  void write(const Box& box, const void* data);
  void write(const void* data) { write(Box::whole(shape_), data); }
  // One chunk, already filtered by the caller, that begins at this element; see chunk_shape().
  void write_chunk(const std::array<std::int64_t, Shape::max_dims>& begin,
                   std::span<const std::byte> filtered);
  Shape chunk_shape() const;  // of a chunked dataset
  void read(const Box& box, void* data) const;
  void read(void* data) const { read(Box::whole(shape_), data); }
  // Where the bytes of element `at` lie in the file, and how many elements lie there side by side,
  // it included: to read them without HDF5. Of a dataset of one dim, contiguous or of chunks with
  // Fletcher32.
  struct StoredRun {
    std::int64_t offset = 0, numel = 0;
  };
  StoredRun stored_run(std::int64_t at) const;

  // The whole dataset as a vector; DataError when it stores another type than T.
  template <class T>
  std::vector<T> read_all() const {
    expect_type(element_type_of<T>());
    std::vector<T> values(static_cast<std::size_t>(shape_.numel()));
    read(values.data());
    return values;
  }
  template <class T>
  void write_all(std::span<const T> values) {
    expect_type(element_type_of<T>());
    expect(static_cast<std::int64_t>(values.size()) == shape_.numel(),
           "one value for each element");
    write(values.data());
  }

  // Byte offset of the data in the file, when the layout is contiguous and data exists.
  std::optional<std::int64_t> file_offset() const;
  void expect_type(ElementType type) const;     // DataError
  void expect_shape(const Shape& shape) const;  // DataError

  void set_attribute(const std::string& key, std::string_view value);
  void set_attribute(const std::string& key, std::int64_t value);
  bool has_attribute(const std::string& key) const;
  std::string string_attribute(const std::string& key) const;  // DataError when absent
  std::int64_t integer_attribute(const std::string& key) const;

 private:
  friend class File;
  Dataset(Handle<Family::dataset> handle, std::string file, std::string name);
  // DataError when the file holds fewer bytes than the shape claims, before anyone allocates them.
  void expect_stored() const;

  Handle<Family::dataset> handle_;
  std::string file_;  // path of the file, for messages
  std::string name_;
  Shape shape_;
  ElementType type_ = ElementType::u8;
  bool is_virtual_ = false;
};

enum class ObjectKind : std::uint8_t { none, group, dataset, other };

class File {
 public:
  static File create(const std::string& path);  // latest format; an existing file is replaced
  // DataError for what is no HDF5 file or a damaged one, IoError for one that cannot be read or
  // that another program has locked, which is named if it is on this host.
  enum class Access : std::uint8_t { read, change };
  static File open(const std::string& path, Access access = Access::read);
  File(File&&) noexcept = default;
  File& operator=(File&&) noexcept = default;

  const std::string& path() const { return path_; }

  // Names may hold slashes; groups on the way are created, or looked through.
  ObjectKind kind(const std::string& name) const;
  bool exists(const std::string& name) const { return kind(name) != ObjectKind::none; }
  std::vector<std::string> list(const std::string& group = "/") const;  // direct members, sorted
  std::vector<std::string> list_datasets() const;  // full paths of all datasets, sorted

  void create_group(const std::string& name);
  void remove(const std::string& name);  // the name; nothing else may use the object
  // Write every element: those that were not are undefined, and open_dataset() refuses a dataset
  // with chunks that never came.
  Dataset create_dataset(const std::string& name, const Shape& shape, ElementType type,
                         const DatasetOptions& options = {});
  Dataset create_dataset(const std::string& name, const VirtualDataset& recipe);
  Dataset open_dataset(const std::string& name) const;  // DataError: absent, strange type or rank

  // A list of texts (without zero bytes) as one-dimensional dataset of texts of fixed length, and
  // back. open_dataset() is for numbers only.
  void write_texts(const std::string& name, std::span<const std::string> texts);
  std::vector<std::string> read_texts(const std::string& name) const;
  bool holds_texts(const std::string& name) const;  // DataError when there is no such dataset

  // Attributes of a group or dataset; "/" is the file itself.
  void set_attribute(const std::string& object, const std::string& key, std::string_view value);
  void set_attribute(const std::string& object, const std::string& key, std::int64_t value);
  bool has_attribute(const std::string& object, const std::string& key) const;
  std::string string_attribute(const std::string& object, const std::string& key) const;
  std::int64_t integer_attribute(const std::string& object, const std::string& key) const;

  // Writes everything out and closes. Without this call a written file may be incomplete: the
  // destructor closes but reports nothing.
  void close();
  void close_synced();  // and syncs the file to the disk

 private:
  File(Handle<Family::file> handle, std::string path, bool is_read_only)
      : handle_(std::move(handle)), path_(std::move(path)), is_read_only_(is_read_only) {}

  Handle<Family::file> handle_;
  std::string path_;
  bool is_read_only_;
};

// Whether the file can be read and begins as HDF5 files do.
bool has_signature(const std::string& path);
// Whether the file can be read and begins with a text (UTF-8 without NUL).
bool is_text(const std::string& path);

// A text as a u8 dataset (chunked, checksummed), and back.
void write_text(File& file, const std::string& name, std::string_view text);
std::string read_text(const File& file, const std::string& name);

}  // namespace switchyard::hdf5
