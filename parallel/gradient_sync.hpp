// Reduces gradients over the replicas of each parameter while the backward pass still runs, and
// gathers the updated values afterwards. The backward pass reports each parameter whose gradient is
// final; when all of a bucket are, its reduction starts. At most `num_staging` buckets are under way,
// which bounds the memory for it.
#pragma once

#include <vector>

#include "parallel/parameter.hpp"

namespace switchyard {

class GradientSync {
 public:
  explicit GradientSync(ParameterStore& store);
  GradientSync(const GradientSync&) = delete;
  GradientSync& operator=(const GradientSync&) = delete;

  // The next backward pass is the step's last: gradients are final when reported.
  void arm();
  // The gradient of `parameter` is final. Without arm() before, nothing happens (accumulation).
  void ready(const Parameter& parameter);
  // Lets reductions under way advance and starts those that waited for a staging buffer.
  void progress();
  // Waits for all. Afterwards the owned part of every bucket holds the sum over the replicas.
  // InternalError if a parameter was never reported.
  void finish();
  // After the update: every replica gets all parts of every bucket's values.
  void gather_values();

 private:
  static constexpr int num_staging = 3;
  struct Slot {
    Tensor staging;
    Event event;
    int bucket = -1;  // -1: free
  };
  void start_waiting();

  ParameterStore& store_;
  std::vector<Slot> slots_;
  std::vector<int> waiting_;       // buckets whose gradients are final, in order of completion
  std::vector<int> missing_;       // parameters still to come, by bucket
  std::vector<int> bucket_of_;     // by parameter, in the store's order
  bool armed_ = false;
};

}  // namespace switchyard
