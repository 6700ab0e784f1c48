#include "trainer/checkpoint/checkpoint_files.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <string_view>

#include "data/files/atomic_file.hpp"
#include "trainer/checkpoint/flat_range.hpp"
#include "trainer/checkpoint/reader.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t chunk_bytes = 1 << 20;

[[noreturn]] void refuse_space(const std::string& path, std::int64_t bytes, int error) {
  throw IoError(fmt::format(
      "{}: the checkpoint's file needs {} bytes, which the system refuses: {}. Free some space or "
      "change run.output; the earlier checkpoints are intact",
      path, bytes, std::strerror(error)));
}

// A full disk, an exceeded quota or a limit of the process must show before HDF5 writes, as a plain
// error: HDF5's own way through one may crash, and keeps what it could not write.
void require_size_allowed(const std::string& path, std::int64_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < static_cast<rlim_t>(bytes))
    refuse_space(path, bytes, EFBIG);
}

// Takes the blocks of a file that was just created, beyond its end.
void reserve_space(const std::string& path, std::int64_t bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) throw IoError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  int error = 0;
  do {
    error = ::fallocate(file, FALLOC_FL_KEEP_SIZE, 0, bytes) == 0 ? 0 : errno;
  } while (error == EINTR);
  ::close(file);
  // Any other reason means that this file system cannot reserve; statvfs has been asked already.
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) refuse_space(path, bytes, error);
}

// The virtual dataset of one part of one tensor.
hdf5::VirtualDataset whole_tensor(SavedPart part, const SavedTensor& tensor) {
  hdf5::VirtualDataset recipe(tensor.shape, hdf5::ElementType::f32);
  const std::string source_name = fmt::format("{}/{}", group_name_of(part), tensor.name);
  std::map<int, std::int64_t> size_of_dataset;
  for (const SavedRange& range : tensor.ranges) size_of_dataset[range.rank] += range.total();
  std::map<int, std::int64_t> offsets;
  for (const SavedRange& range : tensor.ranges) {
    const Shape source_shape{size_of_dataset[range.rank]};
    std::int64_t& offset = offsets[range.rank];
    for (const hdf5::Box& box :
         stretches_to_boxes(tensor.shape, range.begin, range.numel, range.count, range.stride)) {
      recipe.map(rank_file_name(range.rank), source_name, source_shape,
                 hdf5::Box::rows(source_shape, offset, box.numel()), box);
      offset += box.numel();
    }
  }
  return recipe;
}

}  // namespace

hdf5::DatasetOptions checkpoint_dataset_options(std::int64_t numel) {
  const std::int64_t size = size_of(hdf5::ElementType::f32);
  const std::int64_t num_chunks = (numel * size + chunk_bytes - 1) / chunk_bytes;
  hdf5::DatasetOptions options;
  options.chunk_bytes = (numel + num_chunks - 1) / num_chunks * size;
  return options;
}

// Data, alignment, chunk index, headers, names.
std::int64_t bytes_of_dataset(std::int64_t numel) {
  const std::int64_t data = numel * size_of(hdf5::ElementType::f32);
  const std::int64_t num_chunks = data / chunk_bytes + 1;
  return data + num_chunks * (4096 + 256) + 4096;
}

// Three virtual datasets a tensor, with a few boxes for every range of it.
std::int64_t bytes_of_shared_files(const std::vector<SavedTensor>& tensors) {
  std::int64_t bytes = 1 << 20;
  for (const SavedTensor& tensor : tensors) bytes += 8192 + 2048 * std::ssize(tensor.ranges);
  return bytes;
}

hdf5::File create_file_of(const std::string& path, std::int64_t bytes) {
  require_size_allowed(path, bytes);
  hdf5::File file = hdf5::File::create(path);
  reserve_space(path, bytes);
  return file;
}

void trim_reservation(const std::string& path) {
  std::error_code ignored;
  const std::uintmax_t size = fs::file_size(path, ignored);
  if (!ignored) fs::resize_file(path, size, ignored);
}

CheckpointFile describe_file(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  return {name, static_cast<std::int64_t>(fs::file_size(path)), hash_of_file(path)};
}

void write_whole_file(const std::string& path, const Manifest& manifest, std::int64_t bytes) {
  hdf5::File file = create_file_of(path, bytes);
  file.set_attribute("/", "step", manifest.state.step);
  file.set_attribute("/", "num_ranks", static_cast<std::int64_t>(manifest.num_ranks));
  hdf5::write_text(file, "configuration", manifest.configuration);
  for (const SavedPart part : saved_parts_of(ParameterKind::trained, manifest.has_moments)) {
    file.create_group(std::string(group_name_of(part)));
    for (const SavedTensor& tensor : manifest.tensors) {
      if (part != SavedPart::value && tensor.kind == ParameterKind::state) continue;
      file.create_dataset(fmt::format("{}/{}", group_name_of(part), tensor.name),
                          whole_tensor(part, tensor));
    }
  }
  file.close_synced();
  trim_reservation(path);
}

void remove_leftovers(const std::string& folder) {
  std::vector<fs::path> leftovers;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const std::string_view stem = std::string_view(name).substr(0, name.find('.'));
    const std::string_view ending = std::string_view(name).substr(stem.size());
    if (step_of_folder_name(stem) >= 0 && (ending == ".tmp" || ending == ".old.tmp"))
      leftovers.push_back(entry.path());
  }
  for (const fs::path& path : leftovers) fs::remove_all(path);
}

bool is_of_another_course(const std::string& checkpoint, const std::string& course) {
  const std::string named = course_of_checkpoint(checkpoint);
  return !named.empty() && !course.empty() && named != course;
}

void require_free_name(const std::string& path, const std::string& course) {
  if (is_of_another_course(path, course))
    throw IoError(
        fmt::format("{} is in the way: it was put there and belongs to another course than this "
                    "run; move it elsewhere and run the same command again",
                    path));
}

void publish(const std::string& folder, const std::string& temporary, const std::string& name) {
  sync_folder(temporary);
  const std::string path = folder + "/" + name;
  if (fs::exists(path)) fs::rename(path, fmt::format("{}/{}.old.tmp", folder, name));
  fs::rename(temporary, path);
  sync_folder(folder);
}

}  // namespace switchyard
