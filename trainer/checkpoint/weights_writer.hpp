// A checkpoint of weights alone that is written piece by piece, for models that are never in memory
// whole: those that come from elsewhere. It is of one rank and of step 0, and appears when it is
// complete (trainer/checkpoint/checkpoint.hpp).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/files/open_file.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/checkpoint_files.hpp"

namespace switchyard {

class WeightsWriter {
 public:
  // tensors: all of the model, without ranges. IoError as save_checkpoint() has them.
  WeightsWriter(SaveRequest request, std::vector<SavedTensor> tensors);
  ~WeightsWriter();  // what was begun and not finished is removed
  WeightsWriter(const WeightsWriter&) = delete;
  WeightsWriter& operator=(const WeightsWriter&) = delete;

  // The next elements: the tensors in their order, each from its first element to its last, a run
  // of one tensor at a time.
  void write(std::span<const float> values);
  // When every element is written.
  SaveResult finish();

 private:
  bool tensor_is_whole() const;
  void begin_tensor();

  SaveRequest request_;
  Manifest manifest_;
  std::string temporary_;
  std::optional<hdf5::File> file_;
  hdf5::Dataset dataset_;
  OpenFile written_file_;
  std::size_t next_ = 0;      // tensor
  std::int64_t written_ = 0;  // elements of the one before it
  bool is_finished_ = false;
};

}  // namespace switchyard
