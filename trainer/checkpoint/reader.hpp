// Reads tensors of a complete checkpoint, whatever layout wrote it: any range of a tensor, from the
// files of the ranks that own it. It does not go through the virtual datasets of checkpoint.h5,
// since those read a missing file as zeros; here a missing file is an error.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/files/open_file.hpp"
#include "data/hdf5/hdf5.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace switchyard {

// What is stored of every tensor, and the name of its group in the files.
enum class SavedPart : std::uint8_t { value, moment1, moment2 };
inline constexpr SavedPart saved_parts[] = {SavedPart::value, SavedPart::moment1,
                                            SavedPart::moment2};
std::string_view group_name_of(SavedPart part);  // "parameters", "moment1", "moment2"
// Those that a tensor of this kind has: state has no moments, nor has any tensor of a checkpoint of
// weights alone.
std::span<const SavedPart> saved_parts_of(ParameterKind kind, bool has_moments = true);

// Elements that lie side by side in a file, little-endian: any thread can read them, without HDF5.
struct StoredRun {
  std::shared_ptr<const OpenFile> file;
  std::int64_t offset = 0;  // bytes in the file
  std::int64_t begin = 0;   // in what was asked for
  std::int64_t numel = 0;

  // Elements [at, at + out.size()) of the run. IoError.
  void read(std::int64_t at, std::span<float> out) const;
};

class CheckpointReader {
 public:
  // Reads the manifest; does not verify the files (trainer/checkpoint/checkpoint.hpp does).
  // CheckpointError.
  explicit CheckpointReader(std::string folder);

  const std::string& folder() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }
  // Elements [begin, begin + out.size()) of the flattened tensor. CheckpointError with the file.
  void read(SavedPart part, const SavedTensor& tensor, std::int64_t begin, std::span<float> out);
  // The elements of `wanted`, to their local places in `out`, which they fill.
  void read(SavedPart part, const SavedTensor& tensor, std::span<const SlicePiece> wanted,
            std::span<float> out);
  // Where elements [begin, begin + numel) lie. Their checksums are not looked at: this is for who
  // verifies the files as a whole. CheckpointError.
  std::vector<StoredRun> stored_runs(SavedPart part, const SavedTensor& tensor, std::int64_t begin,
                                     std::int64_t numel);

 private:
  // Calls take(rank, dataset, copies) for what each rank's dataset has of `wanted`, a block of it
  // at a time.
  template <class Take>
  void for_copies(SavedPart part, const SavedTensor& tensor, std::span<const SlicePiece> wanted,
                  const Take& take);
  const hdf5::File& file_of(int rank);
  const hdf5::Dataset& dataset_of(int rank, const std::string& name);
  std::shared_ptr<const OpenFile> stored_file_of(int rank);

  std::string folder_;
  Manifest manifest_;
  struct FileOfRank {
    int rank;
    hdf5::File file;
  };
  std::vector<FileOfRank> open_;  // few at a time; the oldest first
  // The one that was read last, with its chunk that was not read to its end.
  struct OpenDataset {
    int rank = -1;
    std::string name;
    hdf5::Dataset dataset;
  };
  OpenDataset last_;
  // The file that was asked for last, without HDF5.
  int stored_rank_ = -1;
  std::shared_ptr<const OpenFile> stored_file_;
};

}  // namespace switchyard
