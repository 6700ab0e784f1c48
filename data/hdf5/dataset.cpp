// Datasets: creation with the right chunks and checks, whole and partial transfer, virtual
// datasets.
#include <fmt/core.h>
#include <hdf5.h>

#include <algorithm>

#include "data/hdf5/check.hpp"

namespace switchyard::hdf5 {

namespace {

using Dims = std::array<hsize_t, Shape::max_dims>;
using PropertyList = Handle<Family::property_list>;
using Dataspace = Handle<Family::dataspace>;

// Chunks that a dataset keeps in memory: enough for rows that begin inside one chunk and end in the
// next to be written without reading anything back.
constexpr std::size_t chunk_cache_bytes = std::size_t{8} << 20;
constexpr std::size_t chunk_cache_slots = 1009;
// Deflate cannot shrink by more than this (1032 : 1 by its format).
constexpr std::int64_t largest_deflate_ratio = 1100;

Dims dims_of(const Shape& shape) {
  Dims dims{};
  for (int d = 0; d < shape.num_dims(); ++d)
    dims[static_cast<std::size_t>(d)] = static_cast<hsize_t>(shape[d]);
  return dims;
}

Shape shape_of(const Dims& dims, int num_dims) {
  const auto dim = [&](std::size_t d) { return static_cast<std::int64_t>(dims[d]); };
  switch (num_dims) {
    case 0:
      return {};
    case 1:
      return {dim(0)};
    case 2:
      return {dim(0), dim(1)};
    case 3:
      return {dim(0), dim(1), dim(2)};
    default:
      return {dim(0), dim(1), dim(2), dim(3)};
  }
}

Dataspace dataspace_of(const Shape& shape, const Call& call) {
  const Dims dims = dims_of(shape);
  return Dataspace(checked(shape.num_dims() == 0
                               ? H5Screate(H5S_SCALAR)
                               : H5Screate_simple(shape.num_dims(), dims.data(), nullptr),
                           call));
}

// A dense block of the box's own dims: where they equal those of the file HDF5 copies whole rows,
// with any others it goes element by element, ten times slower.
Dataspace memory_dataspace(const Box& box, const Call& call) {
  Dims dims{};
  for (std::size_t d = 0; d < static_cast<std::size_t>(box.num_dims); ++d)
    dims[d] = static_cast<hsize_t>(box.count[d]);
  return dataspace_of(shape_of(dims, box.num_dims), call);
}

bool fits(const Box& box, const Shape& shape) {
  if (box.num_dims != shape.num_dims()) return false;
  for (int d = 0; d < box.num_dims; ++d) {
    const auto i = static_cast<std::size_t>(d);
    if (box.begin[i] < 0 || box.count[i] < 0 || box.begin[i] > shape[d] - box.count[i])
      return false;
  }
  return true;
}

void select(const Dataspace& space, const Box& box, const Call& call) {
  if (box.num_dims == 0) return;
  Dims begin{}, count{};
  for (std::size_t d = 0; d < static_cast<std::size_t>(box.num_dims); ++d) {
    begin[d] = static_cast<hsize_t>(box.begin[d]);
    count[d] = static_cast<hsize_t>(box.count[d]);
  }
  checked(
      H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, begin.data(), nullptr, count.data(), nullptr),
      call);
}

// Whole inner dims and as many outer rows as fit; where one row does not fit, the next dim is cut.
Dims chunk_dims(const Shape& shape, std::int64_t element_bytes, std::int64_t chunk_bytes) {
  Dims chunk = dims_of(shape);
  std::int64_t inner_bytes = shape.numel() * element_bytes;
  for (int d = 0; d < shape.num_dims(); ++d) {
    inner_bytes /= shape[d];
    const std::int64_t rows = chunk_bytes / inner_bytes;
    chunk[static_cast<std::size_t>(d)] =
        static_cast<hsize_t>(std::clamp<std::int64_t>(rows, 1, shape[d]));
    if (rows >= 1) break;
  }
  return chunk;
}

PropertyList creation_properties(const Shape& shape, ElementType type,
                                 const DatasetOptions& options, const Call& call) {
  PropertyList creation(checked(H5Pcreate(H5P_DATASET_CREATE), call));
  checked(H5Pset_obj_track_times(creation.id(), false), call);  // same data, same bytes
  if (shape.num_dims() == 0) {
    checked(H5Pset_layout(creation.id(), H5D_COMPACT), call);  // lies in checksummed metadata
    return creation;
  }
  if (options.layout == Layout::contiguous || shape.numel() == 0) {
    checked(H5Pset_layout(creation.id(), H5D_CONTIGUOUS), call);
    checked(H5Pset_alloc_time(creation.id(), H5D_ALLOC_TIME_EARLY), call);
    checked(H5Pset_fill_time(creation.id(), H5D_FILL_TIME_NEVER), call);
    return creation;
  }
  // The fill value (zero) costs no write here: it only clears what a chunk has beyond the data, so
  // that equal contents give equal files.
  const Dims chunk = chunk_dims(shape, size_of(type), options.chunk_bytes);
  checked(H5Pset_chunk(creation.id(), shape.num_dims(), chunk.data()), call);
  if (options.shuffle) checked(H5Pset_shuffle(creation.id()), call);
  if (options.deflate > 0)
    checked(H5Pset_deflate(creation.id(), static_cast<unsigned>(options.deflate)), call);
  if (!options.shuffle) checked(H5Pset_fletcher32(creation.id()), call);
  return creation;
}

Handle<Family::dataset> create_in(std::int64_t file, const std::string& name, const Shape& shape,
                                  ElementType type, const PropertyList& creation,
                                  const Call& call) {
  create_groups_above(file, name, call);
  const PropertyList access(checked(H5Pcreate(H5P_DATASET_ACCESS), call));
  checked(H5Pset_chunk_cache(access.id(), chunk_cache_slots, chunk_cache_bytes, 1.0), call);
  const Dataspace space = dataspace_of(shape, call);
  return Handle<Family::dataset>(
      checked(H5Dcreate2(file, name.c_str(), stored_type(type), space.id(), H5P_DEFAULT,
                         creation.id(), access.id()),
              call));
}

bool is_deflated(const PropertyList& creation) {
  for (int i = 0; i < H5Pget_nfilters(creation.id()); ++i) {
    unsigned flags = 0, config = 0;
    std::size_t num_values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(creation.id(), static_cast<unsigned>(i), &flags,
                                               &num_values, nullptr, 0, nullptr, &config);
    if (filter != H5Z_FILTER_FLETCHER32 && filter != H5Z_FILTER_SHUFFLE) return true;
  }
  return false;
}

// The shape in the file, refused where our own integers could not hold its size.
Shape read_shape(std::int64_t dataset, ElementType type, const Call& call) {
  const Dataspace space(checked(H5Dget_space(dataset), call));
  if (H5Sget_simple_extent_type(space.id()) == H5S_NULL) fail(call, "it has no elements");
  const std::int64_t num_dims = checked(H5Sget_simple_extent_ndims(space.id()), call);
  if (num_dims > Shape::max_dims) fail(call, fmt::format("it has {} dims, more than 4", num_dims));
  Dims dims{};
  checked(H5Sget_simple_extent_dims(space.id(), dims.data(), nullptr), call);
  std::uint64_t bytes = static_cast<std::uint64_t>(size_of(type));
  for (std::size_t d = 0; d < static_cast<std::size_t>(num_dims); ++d)
    if (__builtin_mul_overflow(bytes, dims[d], &bytes) || dims[d] > (hsize_t{1} << 62) ||
        bytes > std::uint64_t{1} << 62)
      fail(call, "its claimed size is not credible");
  return shape_of(dims, static_cast<int>(num_dims));
}

}  // namespace

Box Box::whole(const Shape& shape) {
  Box box;
  box.num_dims = shape.num_dims();
  for (int d = 0; d < shape.num_dims(); ++d) box.count[static_cast<std::size_t>(d)] = shape[d];
  return box;
}

Box Box::rows(const Shape& shape, std::int64_t first, std::int64_t num_rows) {
  expect(shape.num_dims() >= 1, "a shape with rows");
  Box box = whole(shape);
  box.begin[0] = first;
  box.count[0] = num_rows;
  return box;
}

std::int64_t Box::numel() const {
  std::int64_t product = 1;
  for (std::size_t d = 0; d < static_cast<std::size_t>(num_dims); ++d) product *= count[d];
  return product;
}

void VirtualDataset::map(std::string source_file, std::string source_name,
                         const Shape& source_shape, const Box& source, const Box& destination) {
  expect(fits(source, source_shape), "a source box inside its dataset");
  expect(fits(destination, shape_), "a destination box inside the virtual dataset");
  expect(source.numel() == destination.numel(), "source and destination of one size");
  if (source.numel() == 0) return;
  mappings_.push_back(
      {std::move(source_file), std::move(source_name), source_shape, source, destination});
}

Dataset File::create_dataset(const std::string& name, const Shape& shape, ElementType type,
                             const DatasetOptions& options) {
  const Call call{Blame::io, "create dataset", path_, name};
  const PropertyList creation = creation_properties(shape, type, options, call);
  return Dataset(create_in(handle_.id(), name, shape, type, creation, call), path_, name);
}

Dataset File::create_dataset(const std::string& name, const VirtualDataset& recipe) {
  const Call call{Blame::io, "create virtual dataset", path_, name};
  expect(recipe.shape().num_dims() >= 1, "a virtual dataset with dims");
  const PropertyList creation(checked(H5Pcreate(H5P_DATASET_CREATE), call));
  checked(H5Pset_layout(creation.id(), H5D_VIRTUAL), call);
  checked(H5Pset_obj_track_times(creation.id(), false), call);
  for (const VirtualDataset::Mapping& mapping : recipe.mappings()) {
    const Dataspace destination = dataspace_of(recipe.shape(), call);
    select(destination, mapping.destination, call);
    const Dataspace source = dataspace_of(mapping.source_shape, call);
    select(source, mapping.source, call);
    checked(H5Pset_virtual(creation.id(), destination.id(), mapping.source_file.c_str(),
                           mapping.source_name.c_str(), source.id()),
            call);
  }
  return Dataset(create_in(handle_.id(), name, recipe.shape(), recipe.type(), creation, call),
                 path_, name);
}

Dataset::Dataset(Handle<Family::dataset> handle, std::string file, std::string name)
    : handle_(std::move(handle)), file_(std::move(file)), name_(std::move(name)) {
  const Call call{Blame::content, "open dataset", file_, name_};
  const Handle<Family::datatype> datatype(checked(H5Dget_type(handle_.id()), call));
  type_ = element_type_of_datatype(datatype.id(), call);
  shape_ = read_shape(handle_.id(), type_, call);
  const PropertyList creation(checked(H5Dget_create_plist(handle_.id()), call));
  is_virtual_ = H5Pget_layout(creation.id()) == H5D_VIRTUAL;
}

void Dataset::expect_stored() const {
  if (is_virtual_ || shape_.numel() == 0) return;
  const Call call{Blame::content, "open dataset", file_, name_};
  const PropertyList creation(checked(H5Dget_create_plist(handle_.id()), call));
  const auto stored = static_cast<std::int64_t>(H5Dget_storage_size(handle_.id()));
  const std::int64_t claimed = shape_.numel() * size_of(type_);
  const std::int64_t ratio = is_deflated(creation) ? largest_deflate_ratio : 1;
  if (claimed / ratio > stored)
    fail(call, fmt::format("it claims {} bytes {} but the file holds {} bytes of it", claimed,
                           shape_.to_string(), stored));
}

void Dataset::write(const Box& box, const void* data) {
  const Call call{Blame::io, "write dataset", file_, name_};
  expect(fits(box, shape_), "a box inside the dataset");
  if (box.numel() == 0) return;
  const Dataspace file_space = dataspace_of(shape_, call);
  select(file_space, box, call);
  const Dataspace memory_space = memory_dataspace(box, call);
  checked(H5Dwrite(handle_.id(), memory_type(type_), memory_space.id(), file_space.id(),
                   H5P_DEFAULT, data),
          call);
  // Chunks leave the cache now, while a full disk can still be reported: the destructor cannot.
  checked(H5Dflush(handle_.id()), call);
}

void Dataset::write_chunk(const std::array<std::int64_t, Shape::max_dims>& begin,
                          std::span<const std::byte> filtered) {
  const Call call{Blame::io, "write a chunk of dataset", file_, name_};
  Dims offset{};
  for (std::size_t d = 0; d < begin.size(); ++d) offset[d] = static_cast<hsize_t>(begin[d]);
  checked(
      H5Dwrite_chunk(handle_.id(), H5P_DEFAULT, 0, offset.data(), filtered.size(), filtered.data()),
      call);
}

Shape Dataset::chunk_shape() const {
  const Call call{Blame::content, "read the chunks of dataset", file_, name_};
  const PropertyList creation(checked(H5Dget_create_plist(handle_.id()), call));
  Dims dims{};
  const std::int64_t num_dims =
      checked(H5Pget_chunk(creation.id(), Shape::max_dims, dims.data()), call);
  return shape_of(dims, static_cast<int>(num_dims));
}

Dataset::StoredRun Dataset::stored_run(std::int64_t at) const {
  const Call call{Blame::content, "find a chunk of dataset", file_, name_};
  expect(shape_.num_dims() == 1 && at >= 0 && at < shape_.numel(), "an element of a row of them");
  if (const std::optional<std::int64_t> begin = file_offset())
    return {*begin + at * size_of(type_), shape_.numel() - at};
  const std::int64_t chunk_numel = chunk_shape().numel();
  const Dims coordinate{static_cast<hsize_t>(at / chunk_numel * chunk_numel)};
  unsigned skipped_filters = 0;
  haddr_t address = HADDR_UNDEF;
  hsize_t bytes = 0;
  checked(H5Dget_chunk_info_by_coord(handle_.id(), coordinate.data(), &skipped_filters, &address,
                                     &bytes),
          call);
  const std::int64_t size = size_of(type_);
  const std::int64_t stored = chunk_numel * size + std::int64_t{sizeof(std::uint32_t)};
  if (address == HADDR_UNDEF || skipped_filters != 0 || static_cast<std::int64_t>(bytes) != stored)
    fail(call, "it is not stored as its elements and their checksum");
  return {static_cast<std::int64_t>(address) + at % chunk_numel * size,
          std::min(chunk_numel - at % chunk_numel, shape_.numel() - at)};
}

void Dataset::read(const Box& box, void* data) const {
  const Call call{Blame::content, "read dataset", file_, name_};
  expect(fits(box, shape_), "a box inside the dataset");
  if (box.numel() == 0) return;
  const Dataspace file_space = dataspace_of(shape_, call);
  select(file_space, box, call);
  const Dataspace memory_space = memory_dataspace(box, call);
  checked(H5Dread(handle_.id(), memory_type(type_), memory_space.id(), file_space.id(), H5P_DEFAULT,
                  data),
          call);
}

std::optional<std::int64_t> Dataset::file_offset() const {
  const haddr_t offset = H5Dget_offset(handle_.id());
  if (offset == HADDR_UNDEF) return std::nullopt;
  return static_cast<std::int64_t>(offset);
}

void Dataset::expect_type(ElementType type) const {
  if (type_ != type)
    fail({Blame::content, "use dataset", file_, name_},
         fmt::format("it stores {}, {} is wanted", hdf5::name_of(type_), hdf5::name_of(type)));
}

void Dataset::expect_shape(const Shape& shape) const {
  if (shape_ != shape)
    fail({Blame::content, "use dataset", file_, name_},
         fmt::format("its shape is {}, {} is wanted", shape_.to_string(), shape.to_string()));
}

void Dataset::set_attribute(const std::string& key, std::string_view value) {
  write_attribute(handle_.id(), key, value, file_, name_);
}

void Dataset::set_attribute(const std::string& key, std::int64_t value) {
  write_attribute(handle_.id(), key, value, file_, name_);
}

bool Dataset::has_attribute(const std::string& key) const {
  return attribute_exists(handle_.id(), key, file_, name_);
}

std::string Dataset::string_attribute(const std::string& key) const {
  return read_string_attribute(handle_.id(), key, file_, name_);
}

std::int64_t Dataset::integer_attribute(const std::string& key) const {
  return read_integer_attribute(handle_.id(), key, file_, name_);
}

}  // namespace switchyard::hdf5
