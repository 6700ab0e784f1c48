#include "trainer/checkpoint/reader.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr std::size_t max_open_files = 32;
constexpr std::int64_t block_numel = 4 << 20;  // elements read at a time to be spread

// Elements that are neighbours in a rank's dataset and in what the caller wants.
struct Copy {
  std::int64_t from = 0;  // in the dataset
  std::int64_t to = 0;    // in the caller's memory
  std::int64_t numel = 0;
};

// What [global, global + numel) of the flattened tensor, at `from` of the dataset, has of `wanted`.
void append_copies(std::int64_t global, std::int64_t numel, std::int64_t from,
                   std::span<const SlicePiece> wanted, std::vector<Copy>& copies) {
  for (const SlicePiece& piece : wanted) {
    std::int64_t first = 0;  // stretches that may meet it
    std::int64_t end = 1;
    if (piece.count > 1) {
      const std::int64_t stride = piece.global_stride;
      first = std::max<std::int64_t>(0, (global - piece.global_begin - piece.numel) / stride);
      end = std::min(piece.count, (global + numel - piece.global_begin + stride - 1) / stride);
    }
    for (std::int64_t i = first; i < end; ++i) {
      const std::int64_t begin = piece.global_begin + i * piece.global_stride;
      const std::int64_t low = std::max(global, begin);
      const std::int64_t high = std::min(global + numel, begin + piece.numel);
      if (low < high)
        copies.push_back({from + low - global,
                          piece.local_begin + i * piece.local_stride + low - begin, high - low});
    }
  }
}

// What elements [begin, end) of a saved range have of `wanted`; the range begins at `offset` of the
// dataset.
std::vector<Copy> copies_of(const SavedRange& range, std::int64_t offset, std::int64_t begin,
                            std::int64_t end, std::span<const SlicePiece> wanted) {
  std::vector<Copy> copies;
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t stretch = at / range.numel;
    const std::int64_t stop = std::min(end, (stretch + 1) * range.numel);
    append_copies(range.begin + stretch * range.stride + at % range.numel, stop - at, offset + at,
                  wanted, copies);
    at = stop;
  }
  return copies;
}

// The elements of a saved range that may be in [begin, end) of the tensor, by their places in it.
IndexRange overlap_of(const SavedRange& range, std::int64_t begin, std::int64_t end) {
  if (range.count == 1)
    return {std::clamp<std::int64_t>(begin - range.begin, 0, range.numel),
            std::clamp<std::int64_t>(end - range.begin, 0, range.numel)};
  const auto stretch_at = [&](std::int64_t position) {
    return std::clamp<std::int64_t>((position - range.begin) / range.stride, 0, range.count - 1);
  };
  if (end <= range.begin) return {};
  return {stretch_at(begin) * range.numel, (stretch_at(end - 1) + 1) * range.numel};
}

// Copies of one block of a dataset. One that is all of it needs no place in between.
void read_block(const hdf5::Dataset& dataset, const std::vector<Copy>& copies, std::span<float> out,
                std::vector<float>& block) {
  const auto read = [&](std::int64_t from, std::int64_t numel, float* to) {
    dataset.read(hdf5::Box::rows(dataset.shape(), from, numel), to);
  };
  if (copies.size() == 1) return read(copies[0].from, copies[0].numel, out.data() + copies[0].to);
  std::int64_t begin = copies.front().from;
  std::int64_t end = begin;
  for (const Copy& copy : copies) {
    begin = std::min(begin, copy.from);
    end = std::max(end, copy.from + copy.numel);
  }
  block.resize(static_cast<std::size_t>(end - begin));
  read(begin, end - begin, block.data());
  for (const Copy& copy : copies)
    std::copy_n(block.data() + copy.from - begin, copy.numel, out.data() + copy.to);
}

}  // namespace

std::span<const SavedPart> saved_parts_of(ParameterKind kind, bool has_moments) {
  const bool value_alone = kind == ParameterKind::state || !has_moments;
  return std::span(saved_parts).first(value_alone ? 1 : std::size(saved_parts));
}

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

void StoredRun::read(std::int64_t at, std::span<float> out) const {
  expect(at >= 0 && std::ssize(out) <= numel - at, "elements of the run");
  file->read_at(offset + at * std::int64_t{sizeof(float)}, out.data(),
                std::ssize(out) * std::int64_t{sizeof(float)});
}

CheckpointReader::CheckpointReader(std::string folder)
    : folder_(std::move(folder)), manifest_(read_manifest(folder_)) {}

void CheckpointReader::read(SavedPart part, const SavedTensor& tensor, std::int64_t begin,
                            std::span<float> out) {
  const SlicePiece all{.global_begin = begin, .local_begin = 0, .numel = std::ssize(out)};
  if (!out.empty()) read(part, tensor, {&all, 1}, out);
}

void CheckpointReader::read(SavedPart part, const SavedTensor& tensor,
                            std::span<const SlicePiece> wanted, std::span<float> out) {
  std::vector<float> block;
  for_copies(part, tensor, wanted,
             [&](int, const hdf5::Dataset& dataset, const std::vector<Copy>& copies) {
               read_block(dataset, copies, out, block);
             });
}

std::vector<StoredRun> CheckpointReader::stored_runs(SavedPart part, const SavedTensor& tensor,
                                                     std::int64_t begin, std::int64_t numel) {
  std::vector<StoredRun> runs;
  const SlicePiece all{.global_begin = begin, .local_begin = 0, .numel = numel};
  for_copies(part, tensor, {&all, 1},
             [&](int rank, const hdf5::Dataset& dataset, const std::vector<Copy>& copies) {
               for (const Copy& copy : copies)
                 for (std::int64_t at = 0; at < copy.numel; at += runs.back().numel) {
                   const auto stored = dataset.stored_run(copy.from + at);
                   runs.push_back({stored_file_of(rank), stored.offset, copy.to + at,
                                   std::min(stored.numel, copy.numel - at)});
                 }
             });
  return runs;
}

template <class Take>
void CheckpointReader::for_copies(SavedPart part, const SavedTensor& tensor,
                                  std::span<const SlicePiece> wanted, const Take& take) {
  std::int64_t first = tensor.shape.numel();
  std::int64_t end = 0;
  for (const SlicePiece& piece : wanted) {
    first = std::min(first, piece.global_begin);
    end = std::max(end, piece.global_begin + (piece.count - 1) * piece.global_stride + piece.numel);
  }
  expect(wanted.empty() || (first >= 0 && end <= tensor.shape.numel()),
         "elements inside the saved tensor");
  const std::string name = fmt::format("{}/{}", group_name_of(part), tensor.name);
  std::map<int, std::int64_t> size_of_dataset;
  for (const SavedRange& range : tensor.ranges) size_of_dataset[range.rank] += range.total();
  std::map<int, std::int64_t> offsets;  // where a rank's next range begins in its dataset
  for (const SavedRange& range : tensor.ranges) {
    const std::int64_t offset = offsets[range.rank];
    offsets[range.rank] += range.total();
    const IndexRange overlap = overlap_of(range, first, end);
    if (overlap.size() <= 0) continue;
    try {
      const hdf5::Dataset& dataset = dataset_of(range.rank, name);
      dataset.expect_type(hdf5::ElementType::f32);
      dataset.expect_shape({size_of_dataset[range.rank]});
      // What is one run on both sides goes straight to its place, however long.
      const std::int64_t step = range.count == 1 && wanted.size() == 1 && wanted[0].count == 1
                                    ? overlap.size()
                                    : block_numel;
      for (std::int64_t at = overlap.begin; at < overlap.end; at += step) {
        const std::vector<Copy> copies =
            copies_of(range, offset, at, std::min(at + step, overlap.end), wanted);
        if (!copies.empty()) take(range.rank, dataset, copies);
      }
    } catch (const DataError& error) {
      throw CheckpointError(error.what());
    } catch (const IoError& error) {
      throw CheckpointError(error.what());
    }
  }
}

const hdf5::Dataset& CheckpointReader::dataset_of(int rank, const std::string& name) {
  if (last_.rank != rank || last_.name != name) {
    last_ = {};
    last_ = {rank, name, file_of(rank).open_dataset(name)};
  }
  return last_.dataset;
}

const hdf5::File& CheckpointReader::file_of(int rank) {
  for (const FileOfRank& open : open_)
    if (open.rank == rank) return open.file;
  if (open_.size() == max_open_files) open_.erase(open_.begin());
  open_.push_back({rank, hdf5::File::open(folder_ + "/" + rank_file_name(rank))});
  return open_.back().file;
}

std::shared_ptr<const OpenFile> CheckpointReader::stored_file_of(int rank) {
  if (stored_rank_ != rank) {
    stored_file_ = std::make_shared<const OpenFile>(folder_ + "/" + rank_file_name(rank),
                                                    OpenFile::Access::read);
    stored_rank_ = rank;
  }
  return stored_file_;
}

}  // namespace switchyard
