#include "trainer/checkpoint/reader.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr std::size_t max_open_files = 32;

}  // namespace

std::string_view group_name_of(SavedPart part) {
  switch (part) {
    case SavedPart::value:
      return "parameters";
    case SavedPart::moment1:
      return "moment1";
    case SavedPart::moment2:
      return "moment2";
  }
  return "?";
}

CheckpointReader::CheckpointReader(std::string folder)
    : folder_(std::move(folder)), manifest_(read_manifest(folder_)) {}

void CheckpointReader::read(SavedPart part, const SavedTensor& tensor, std::int64_t begin,
                            std::span<float> out) {
  const std::int64_t end = begin + static_cast<std::int64_t>(out.size());
  expect(begin >= 0 && end <= tensor.shape.numel(), "a range inside the saved tensor");
  const std::string name = fmt::format("{}/{}", group_name_of(part), tensor.name);
  for (const SavedRange& range : tensor.ranges) {
    const std::int64_t from = std::max(begin, range.begin);
    const std::int64_t to = std::min(end, range.begin + range.numel);
    if (from >= to) continue;
    try {
      const hdf5::Dataset dataset = file_of(range.rank).open_dataset(name);
      dataset.expect_type(hdf5::ElementType::f32);
      dataset.expect_shape({range.numel});
      dataset.read(hdf5::Box::rows({range.numel}, from - range.begin, to - from),
                   out.data() + (from - begin));
    } catch (const DataError& error) {
      throw CheckpointError(error.what());
    } catch (const IoError& error) {
      throw CheckpointError(error.what());
    }
  }
}

const hdf5::File& CheckpointReader::file_of(int rank) {
  for (const OpenFile& open : open_)
    if (open.rank == rank) return open.file;
  if (open_.size() == max_open_files) open_.erase(open_.begin());
  open_.push_back({rank, hdf5::File::open(folder_ + "/" + rank_file_name(rank))});
  return open_.back().file;
}

}  // namespace switchyard
