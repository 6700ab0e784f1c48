// A checkpoint of weights alone that is written piece by piece, for models that are never in memory
// whole: those that come from elsewhere. It is of step 0, and appears when it is complete
// (trainer/checkpoint/checkpoint.hpp).
//
// A large one is cut into files of some tensors each, as if some ranks had written it: while the
// next one is written, another thread syncs and hashes the one before.
#pragma once

#include <future>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/files/open_file.hpp"
#include "data/hdf5/chunk_stream.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/checkpoint_files.hpp"

namespace switchyard {

class WeightsWriter {
 public:
  // tensors: all of the model, without ranges. A file is ended when it has `least_file_bytes`, or
  // more where there were too many files otherwise. IoError as save_checkpoint() has them.
  WeightsWriter(SaveRequest request, std::vector<SavedTensor> tensors,
                std::int64_t least_file_bytes = std::int64_t{128} << 20);
  ~WeightsWriter();  // what was begun and not finished is removed
  WeightsWriter(const WeightsWriter&) = delete;
  WeightsWriter& operator=(const WeightsWriter&) = delete;

  // Of elements that begin at `begin` of a tensor of `numel` elements: what write() wants of them.
  // Any thread.
  static std::vector<hdf5::Fletcher32> checksums_of(std::int64_t numel, std::int64_t begin,
                                                    std::span<const float> values);
  // The next elements: the tensors in their order, each from its first element to its last, a run
  // of one tensor at a time. They are changed meanwhile, and come back.
  void write(std::span<float> values, std::span<const hdf5::Fletcher32> checksums);
  // When every element is written.
  SaveResult finish();

 private:
  int plan_files(std::int64_t least_bytes);  // into manifest_.tensors; how many
  void begin_tensor();
  void begin_file();
  void end_file();
  std::string path_of(int file) const;

  SaveRequest request_;
  Manifest manifest_;
  std::string temporary_;
  std::vector<std::int64_t> file_bytes_;  // upper bounds
  std::optional<hdf5::File> file_;
  OpenFile written_file_;
  std::int64_t num_begun_bytes_ = 0;  // of the file, which are on their way to the disk
  std::vector<std::future<CheckpointFile>> ended_files_;
  hdf5::ChunkStream stream_;
  std::size_t next_ = 0;  // tensor
  bool is_finished_ = false;
};

}  // namespace switchyard
