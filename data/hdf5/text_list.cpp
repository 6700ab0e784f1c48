// Lists of texts: one-dimensional datasets of UTF-8 texts of one fixed length, filled up with zero
// bytes, which h5py and pandas read as texts.
#include <fmt/core.h>
#include <hdf5.h>

#include <algorithm>

#include "data/hdf5/check.hpp"

namespace switchyard::hdf5 {

namespace {

using Datatype = Handle<Family::datatype>;

constexpr std::size_t max_text_bytes = std::size_t{1} << 20;

Datatype text_type(std::size_t width, const Call& call) {
  Datatype type(checked(H5Tcopy(H5T_C_S1), call));
  checked(H5Tset_size(type.id(), width), call);
  checked(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), call);
  checked(H5Tset_cset(type.id(), H5T_CSET_UTF8), call);
  return type;
}

Handle<Family::dataset> open_texts(std::int64_t file, const std::string& name, const Call& call) {
  return Handle<Family::dataset>(checked(H5Dopen2(file, name.c_str(), H5P_DEFAULT), call));
}

}  // namespace

void File::write_texts(const std::string& name, std::span<const std::string> texts) {
  const Call call{Blame::io, "write dataset", path_, name};
  std::size_t width = 1;
  for (const std::string& text : texts) width = std::max(width, text.size());
  expect(width <= max_text_bytes, "texts of at most a MiB in a list");
  const Datatype type = text_type(width, call);
  const hsize_t count = texts.size();
  const Handle<Family::dataspace> space(checked(H5Screate_simple(1, &count, nullptr), call));
  const Handle<Family::property_list> creation(checked(H5Pcreate(H5P_DATASET_CREATE), call));
  checked(H5Pset_obj_track_times(creation.id(), false), call);
  if (count > 0) {
    const hsize_t chunk = std::clamp<hsize_t>(max_text_bytes / width, 1, count);
    checked(H5Pset_chunk(creation.id(), 1, &chunk), call);
    checked(H5Pset_deflate(creation.id(), 4), call);  // texts differ in length
    checked(H5Pset_fletcher32(creation.id()), call);
  }
  create_groups_above(handle_.id(), name, call);
  const Handle<Family::dataset> dataset(
      checked(H5Dcreate2(handle_.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT,
                         creation.id(), H5P_DEFAULT),
              call));
  if (count == 0) return;
  std::string bytes(width * texts.size(), '\0');
  for (std::size_t i = 0; i < texts.size(); ++i) texts[i].copy(bytes.data() + i * width, width);
  checked(H5Dwrite(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), call);
  checked(H5Dflush(dataset.id()), call);
}

bool File::holds_texts(const std::string& name) const {
  const Call call{Blame::content, "open dataset", path_, name};
  if (kind(name) != ObjectKind::dataset) fail(call, "there is no such dataset");
  const Handle<Family::dataset> dataset = open_texts(handle_.id(), name, call);
  const Datatype type(checked(H5Dget_type(dataset.id()), call));
  return H5Tget_class(type.id()) == H5T_STRING && checked(H5Tis_variable_str(type.id()), call) == 0;
}

std::vector<std::string> File::read_texts(const std::string& name) const {
  const Call call{Blame::content, "read dataset", path_, name};
  if (!holds_texts(name)) fail(call, "it is not a list of texts");
  const Handle<Family::dataset> dataset = open_texts(handle_.id(), name, call);
  const Handle<Family::dataspace> space(checked(H5Dget_space(dataset.id()), call));
  if (H5Sget_simple_extent_ndims(space.id()) != 1) fail(call, "it is not a list of texts");
  const Datatype stored(checked(H5Dget_type(dataset.id()), call));
  const std::size_t width = H5Tget_size(stored.id());
  hsize_t count = 0;
  checked(H5Sget_simple_extent_dims(space.id(), &count, nullptr), call);
  if (width > max_text_bytes || count > (hsize_t{1} << 32) / std::max<std::size_t>(width, 1))
    fail(call, "its claimed size is not credible");
  std::vector<std::string> texts(count);
  if (count == 0) return texts;
  std::string bytes(width * count, '\0');
  const Datatype type = text_type(width, call);
  checked(H5Dread(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), call);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string_view field = std::string_view(bytes).substr(i * width, width);
    texts[i] = field.substr(0, field.find('\0'));
  }
  return texts;
}

}  // namespace switchyard::hdf5
