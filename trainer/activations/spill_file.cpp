#include "trainer/activations/spill_file.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/host_copy.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Room for more rows than were asked for, so that a rising load seldom moves a dataset.
constexpr std::int64_t spare_share = 4;
// What HDF5 may add to the file beside the data: headers, alignment.
constexpr std::int64_t overhead_bytes = 64 << 10;

std::string name_of(std::int64_t layer, const std::string& part) {
  return fmt::format("layers.{}/{}", layer, part);
}

hdf5::File create(const std::string& folder, const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError(fmt::format("{}: cannot be created: {}", folder, error.message()));
  if (const int limit = size_error(overhead_bytes))
    throw IoError(fmt::format("{}: cannot be created: {}", path, std::strerror(limit)));
  return hdf5::File::create(path);
}

}  // namespace

SpillFile::SpillFile(const std::string& folder, int rank)
    : folder_(folder),
      path_(fmt::format("{}/spilled-{}-rank-{}.h5", folder, ::getpid(), rank)),
      datasets_(create(folder_, path_)),
      file_(path_) {
  file_.unlink();
  datasets_.set_attribute("/", "rank", static_cast<std::int64_t>(rank));
}

void SpillFile::refuse(std::int64_t bytes, int error) const {
  throw IoError(fmt::format(
      "{}: spilled activations need {} more bytes there, which the system refuses: {}. Free some "
      "space, set activations.folder to a larger disk, or use activations.policy recompute; the "
      "checkpoints are intact",
      path_, bytes, std::strerror(error)));
}

void SpillFile::take_space(const Place& place) {
  const std::int64_t bytes = place.num_rows * place.row_bytes;
  if (const int error = file_.reserve(place.offset, bytes)) refuse(bytes, error);
}

void SpillFile::make_room(std::int64_t layer, const std::vector<Wish>& wishes) {
  if (wishes.empty()) return;
  std::int64_t bytes = overhead_bytes;
  for (const Wish& wish : wishes) {
    const TensorView& view = wish.part->tensor->view();
    bytes += wish.num_rows * view.row_stride * size_of(view.dtype) + overhead_bytes;
  }
  if (const int error = size_error(file_.size() + bytes)) refuse(bytes, error);

  for (const Wish& wish : wishes) {
    const TensorView& view = wish.part->tensor->view();
    const std::string name = name_of(layer, wish.part->name);
    Place& place = places_[layer][wish.part->name];
    if (place.num_rows > 0) {
      file_.discard(place.offset, place.num_rows * place.row_bytes);
      datasets_.remove(name);
    }
    hdf5::Dataset dataset = datasets_.create_dataset(name, view.shape.with_dim0(wish.num_rows),
                                                     hdf5::element_type(view.dtype),
                                                     {.layout = hdf5::Layout::contiguous});
    dataset.set_attribute("dtype", switchyard::name_of(view.dtype));
    const std::optional<std::int64_t> offset = dataset.file_offset();
    expect(offset.has_value(), "a contiguous dataset to have its place in the file at once");
    place = {*offset, wish.num_rows, view.row_stride * size_of(view.dtype)};
  }
  for (const Wish& wish : wishes) take_space(places_[layer][wish.part->name]);
}

void SpillFile::prepare(std::int64_t layer, std::span<const RecordTensor> record,
                        RowCapacity& /*capacity*/) {
  std::vector<Wish> wishes;
  for (const RecordTensor& part : record)
    if (!part.follows_rows) wishes.push_back({&part, part.tensor->view().rows()});
  make_room(layer, wishes);
}

void SpillFile::start_write(std::int64_t layer, std::span<const RecordTensor> record) {
  std::vector<Wish> wishes;
  for (const RecordTensor& part : record)
    if (part.num_rows > places_[layer][part.name].num_rows)
      wishes.push_back(
          {&part, std::min(part.num_rows + part.num_rows / spare_share, part.tensor->max_rows())});
  make_room(layer, wishes);
  for (const RecordTensor& part : record) {
    const TensorView view = part.used();
    if (view.numel() == 0) continue;
    bytes_written_ += static_cast<double>(view.num_bytes());
    copies_.start(layer, [this, view, offset = places_[layer][part.name].offset] {
      const TensorView bytes = view.reinterpret(DType::u8, {view.num_bytes()});
      const kernels::HostContents<std::uint8_t> contents(bytes);
      if (const int error = file_.write_at(offset, contents.span().data(), view.num_bytes()))
        refuse(view.num_bytes(), error);
    });
  }
}

void SpillFile::start_read(std::int64_t layer, std::span<const RecordTensor> record) {
  for (const RecordTensor& part : record) {
    const TensorView view = part.used();
    if (view.numel() == 0) continue;
    bytes_read_ += static_cast<double>(view.num_bytes());
    copies_.start(layer, [this, view, offset = places_[layer][part.name].offset] {
      kernels::write_from_host<std::uint8_t>(
          view.reinterpret(DType::u8, {view.num_bytes()}), [&](std::span<std::uint8_t> bytes) {
            file_.read_at(offset, bytes.data(), view.num_bytes());
          });
    });
  }
}

ActivationStore::Statistics SpillFile::statistics() const {
  return {bytes_written_, bytes_read_, copies_.busy_seconds()};
}

}  // namespace switchyard
