// Spilled records in memory: a copy of every record that moves, counted as Purpose::spilled. On a
// device of its own memory that is the host's; on the CPU it saves nothing and serves comparison.
// On the plan device it counts the bytes and copies nothing.
#pragma once

#include <map>
#include <string>

#include "model/activation_store.hpp"
#include "trainer/activations/copy_thread.hpp"

namespace switchyard {

class MemoryStore final : public ActivationStore {
 public:
  explicit MemoryStore(Device& device) : device_(device) {}

  bool is_in_memory() const override { return true; }
  void prepare(std::int64_t layer, std::span<const RecordTensor> record,
               RowCapacity& capacity) override;
  void start_write(std::int64_t layer, std::span<const RecordTensor> record) override;
  void start_read(std::int64_t layer, std::span<const RecordTensor> record) override;
  bool wait_for(std::int64_t layer, double seconds) override {
    return copies_.wait_for(layer, seconds);
  }
  Statistics statistics() const override;

 private:
  TensorView place_of(std::int64_t layer, const RecordTensor& part) const;

  Device& device_;
  // By layer and name. Nodes stay where they are: the capacity knows the growable ones.
  std::map<std::int64_t, std::map<std::string, Tensor>> tensors_;
  double bytes_written_ = 0;
  double bytes_read_ = 0;
  CopyThread copies_;  // dies first
};

}  // namespace switchyard
