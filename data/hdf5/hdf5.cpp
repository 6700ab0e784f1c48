#include "data/hdf5/hdf5.hpp"

#include <fmt/core.h>
#include <hdf5.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "data/files/atomic_file.hpp"
#include "data/hdf5/check.hpp"
#include "data/hdf5/open_failure.hpp"

namespace switchyard::hdf5 {

namespace {

using PropertyList = Handle<Family::property_list>;

// Data of this size and more begins on a page, so that it can be mapped and read well.
constexpr hsize_t alignment_threshold = 1 << 18;
constexpr hsize_t alignment = 4096;

PropertyList file_access(const Call& call) {
  PropertyList access(checked(H5Pcreate(H5P_FILE_ACCESS), call));
  checked(H5Pset_libver_bounds(access.id(), H5F_LIBVER_LATEST, H5F_LIBVER_LATEST), call);
  checked(H5Pset_alignment(access.id(), alignment_threshold, alignment), call);
  return access;
}

herr_t collect_name(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->push_back(name);
  return 0;
}

// Every link on the way to `name` must be there before HDF5 may be asked about the last one.
bool links_exist(std::int64_t file, const std::string& name, const Call& call) {
  for (std::size_t at = name.find_first_not_of('/'); at != std::string::npos;) {
    const std::size_t slash = name.find('/', at);
    const std::string prefix = name.substr(0, slash);
    if (checked(H5Lexists(file, prefix.c_str(), H5P_DEFAULT), call) == 0) return false;
    if (checked(H5Oexists_by_name(file, prefix.c_str(), H5P_DEFAULT), call) == 0) return false;
    at = name.find_first_not_of('/', std::min(slash, name.size()));
  }
  return true;
}

void collect_datasets(const File& file, const std::string& group, std::vector<std::string>& paths) {
  for (const std::string& name : file.list(group)) {
    const std::string path = (group == "/" ? "" : group) + "/" + name;
    const ObjectKind kind = file.kind(path);
    if (kind == ObjectKind::dataset) paths.push_back(path);
    if (kind == ObjectKind::group) collect_datasets(file, path, paths);
  }
}

Handle<Family::object> open_object(std::int64_t file, const std::string& name, const Call& call) {
  if (!links_exist(file, name, call)) fail(call, "there is no such object");
  return Handle<Family::object>(checked(H5Oopen(file, name.c_str(), H5P_DEFAULT), call));
}

}  // namespace

File File::create(const std::string& path) {
  start_library();
  const Call call{Blame::io, "create the file", path};
  const PropertyList access = file_access(call);
  const PropertyList creation(checked(H5Pcreate(H5P_FILE_CREATE), call));
  checked(H5Pset_obj_track_times(creation.id(), false), call);  // of the root group
  return File(Handle<Family::file>(checked(
                  H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()), call)),
              path, false);
}

File File::open(const std::string& path, Access how) {
  start_library();
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    throw IoError(fmt::format("{}: cannot open the file: {}", path, std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) throw IoError(fmt::format("{}: is not a file", path));
  const PropertyList access = file_access({Blame::content, "open", path});
  const unsigned flags = how == Access::read ? H5F_ACC_RDONLY : H5F_ACC_RDWR;
  const std::int64_t id = H5Fopen(path.c_str(), flags, access.id());
  if (id < 0) fail_to_open(path, reasons_on_stack());
  return File(Handle<Family::file>(id), path, how == Access::read);
}

ObjectKind File::kind(const std::string& name) const {
  const Call call{Blame::content, "look for", path_, name};
  if (!links_exist(handle_.id(), name, call)) return ObjectKind::none;
  const Handle<Family::object> object(
      checked(H5Oopen(handle_.id(), name.c_str(), H5P_DEFAULT), call));
  switch (H5Iget_type(object.id())) {
    case H5I_GROUP:
      return ObjectKind::group;
    case H5I_DATASET:
      return ObjectKind::dataset;
    default:
      return ObjectKind::other;
  }
}

std::vector<std::string> File::list(const std::string& group) const {
  const Call call{Blame::content, "list", path_, group};
  if (kind(group) != ObjectKind::group) fail(call, "there is no such group");
  const Handle<Family::group> handle(
      checked(H5Gopen2(handle_.id(), group.c_str(), H5P_DEFAULT), call));
  std::vector<std::string> names;
  checked(H5Literate(handle.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &names), call);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> File::list_datasets() const {
  std::vector<std::string> paths;
  collect_datasets(*this, "/", paths);
  std::sort(paths.begin(), paths.end());
  return paths;
}

void create_groups_above(std::int64_t file, const std::string& name, const Call& call) {
  for (std::size_t slash = name.find('/', 1); slash != std::string::npos;
       slash = name.find('/', slash + 1)) {
    const std::string group = name.substr(0, slash);
    if (links_exist(file, group, call)) continue;
    const PropertyList creation(checked(H5Pcreate(H5P_GROUP_CREATE), call));
    checked(H5Pset_obj_track_times(creation.id(), false), call);
    const Handle<Family::group> created(
        checked(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, creation.id(), H5P_DEFAULT), call));
  }
}

void File::create_group(const std::string& name) {
  const Call call{Blame::io, "create group", path_, name};
  if (links_exist(handle_.id(), name, call)) fail(call, "the name is taken");
  create_groups_above(handle_.id(), name + "/", call);
}

void File::remove(const std::string& name) {
  checked(H5Ldelete(handle_.id(), name.c_str(), H5P_DEFAULT), {Blame::io, "remove", path_, name});
}

Dataset File::open_dataset(const std::string& name) const {
  const Call call{Blame::content, "open dataset", path_, name};
  if (kind(name) != ObjectKind::dataset) fail(call, "there is no such dataset");
  Dataset dataset(
      Handle<Family::dataset>(checked(H5Dopen2(handle_.id(), name.c_str(), H5P_DEFAULT), call)),
      path_, name);
  if (is_read_only_) dataset.expect_stored();
  return dataset;
}

void File::set_attribute(const std::string& object, const std::string& key,
                         std::string_view value) {
  const auto handle = open_object(handle_.id(), object, {Blame::content, "open", path_, object});
  write_attribute(handle.id(), key, value, path_, object);
}

void File::set_attribute(const std::string& object, const std::string& key, std::int64_t value) {
  const auto handle = open_object(handle_.id(), object, {Blame::content, "open", path_, object});
  write_attribute(handle.id(), key, value, path_, object);
}

bool File::has_attribute(const std::string& object, const std::string& key) const {
  const auto handle = open_object(handle_.id(), object, {Blame::content, "open", path_, object});
  return attribute_exists(handle.id(), key, path_, object);
}

std::string File::string_attribute(const std::string& object, const std::string& key) const {
  const auto handle = open_object(handle_.id(), object, {Blame::content, "open", path_, object});
  return read_string_attribute(handle.id(), key, path_, object);
}

std::int64_t File::integer_attribute(const std::string& object, const std::string& key) const {
  const auto handle = open_object(handle_.id(), object, {Blame::content, "open", path_, object});
  return read_integer_attribute(handle.id(), key, path_, object);
}

void File::close() {
  const Call call{Blame::io, "close the file", path_};
  const std::int64_t num_open =
      checked(H5Fget_obj_count(handle_.id(), H5F_OBJ_ALL | H5F_OBJ_LOCAL), call);
  expect(num_open == 1, "no dataset of an HDF5 file open while the file is closed");
  checked(H5Fflush(handle_.id(), H5F_SCOPE_LOCAL), call);
  checked(handle_.close() ? 0 : -1, call);
}

void File::close_synced() {
  close();
  sync_file(path_);
}

bool has_signature(const std::string& path) {
  return beginning_of(path).starts_with(signature);
}

void write_text(File& file, const std::string& name, std::string_view text) {
  Dataset dataset =
      file.create_dataset(name, {static_cast<std::int64_t>(text.size())}, ElementType::u8);
  dataset.write(text.data());
}

std::string read_text(const File& file, const std::string& name) {
  const Dataset dataset = file.open_dataset(name);
  dataset.expect_type(ElementType::u8);
  std::string text(static_cast<std::size_t>(dataset.shape().numel()), '\0');
  dataset.read(text.data());
  return text;
}

}  // namespace switchyard::hdf5
