// Spilled records in an HDF5 file of this rank on a disk of its host. The main thread, the only one
// that may call HDF5, makes one contiguous dataset a layer and tensor, such as
// layers.3/attention.qkv; a thread then writes and reads their bytes where they lie in the file,
// without HDF5.
//
// The file has no name in its folder once it is open, so the system removes it when the process
// ends, however it ends.
#pragma once

#include <map>
#include <string>

#include "data/files/open_file.hpp"
#include "data/hdf5/hdf5.hpp"
#include "model/activation_store.hpp"
#include "trainer/activations/copy_thread.hpp"

namespace switchyard {

class SpillFile final : public ActivationStore {
 public:
  // Makes the folder if need be. IoError if the file cannot be made there.
  SpillFile(const std::string& folder, int rank);

  // For a look at what lies there, while nothing is under way.
  const hdf5::File& file() const { return datasets_; }

  bool is_in_memory() const override { return false; }
  // Takes the space of the tensors of fixed size, so that a full disk shows before the first step.
  void prepare(std::int64_t layer, std::span<const RecordTensor> record,
               RowCapacity& capacity) override;
  void start_write(std::int64_t layer, std::span<const RecordTensor> record) override;
  void start_read(std::int64_t layer, std::span<const RecordTensor> record) override;
  bool wait_for(std::int64_t layer, double seconds) override {
    return copies_.wait_for(layer, seconds);
  }
  Statistics statistics() const override;

 private:
  struct Place {
    std::int64_t offset = 0;    // in the file
    std::int64_t num_rows = 0;  // that it has room for
    std::int64_t row_bytes = 0;
  };
  // A dataset with room for `num_rows` rows, instead of one that was too small.
  struct Wish {
    const RecordTensor* part = nullptr;
    std::int64_t num_rows = 0;
  };
  void make_room(std::int64_t layer, const std::vector<Wish>& wishes);
  void take_space(const Place& place);
  [[noreturn]] void refuse(std::int64_t bytes, int error) const;

  std::string folder_;
  std::string path_;
  hdf5::File datasets_;
  OpenFile file_;                                                // the same one
  std::map<std::int64_t, std::map<std::string, Place>> places_;  // by layer and name
  double bytes_written_ = 0;
  double bytes_read_ = 0;
  CopyThread copies_;  // dies first
};

}  // namespace switchyard
