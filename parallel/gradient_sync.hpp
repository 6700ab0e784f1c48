// Reduces gradients over the replicas of each parameter while the backward pass still runs, and
// gathers the updated values afterwards. The backward pass reports each parameter whose gradient is
// final; when all of a bucket are, its reduction can start.
//
// The buckets of one axis start in bucket order, whatever the order of the reports: all replicas
// then start the same exchanges in the same order. Each axis has `num_staging` buffers of its own,
// so at most that many of its buckets are under way, and no axis waits for a buffer of another: two
// ranks that disagree on the order between axes cannot block each other.
#pragma once

#include <vector>

#include "parallel/parameter.hpp"

namespace switchyard {

class GradientSync {
 public:
  // After store.allocate(); the store outlives it.
  explicit GradientSync(ParameterStore& store);
  GradientSync(const GradientSync&) = delete;
  GradientSync& operator=(const GradientSync&) = delete;

  // The next backward pass is the step's last: gradients are final when reported.
  void arm();
  // The gradient of `parameter` is final. Without arm() before, nothing happens (accumulation).
  void ready(const Parameter& parameter);
  // Lets reductions under way advance and starts those that waited for a staging buffer. Cheap.
  void progress();
  // Waits for all. Afterwards the owned part of every bucket holds the sum over the replicas.
  // InternalError, naming it, if a parameter was never reported.
  void finish();
  // After the update: every replica gets all parts of every bucket's values.
  void gather_values();

 private:
  static constexpr int num_staging = 3;

  struct Slot {
    Tensor staging;
    Event event;
  };
  // The buckets that are reduced over one axis. The n-th reduction uses slot n modulo their number.
  struct Lane {
    std::vector<int> buckets;  // in the order of their exchanges
    std::vector<Slot> slots;
    std::size_t num_started = 0;
    std::size_t num_finished = 0;
  };

  void make_lane(Axis axis);
  bool can_start(const Lane& lane) const;
  void start_next(Lane& lane);
  void advance(Lane& lane);
  void drain(Lane& lane);
  void expect_all_reported() const;

  ParameterStore& store_;
  std::vector<Lane> lanes_;
  std::vector<int> missing_;    // parameters still to come, by bucket
  std::vector<int> bucket_of_;  // by parameter, in the store's order
  std::vector<bool> reported_;  // by parameter
  bool armed_ = false;
};

}  // namespace switchyard
