// Reduces gradients over the replicas of each parameter while the backward pass still runs, and
// gathers the updated values afterwards. The backward pass reports each parameter whose gradient is
// final; when all of a bucket are, its reduction can start.
//
// What starts when is a function of the reports alone. Buckets start in the store's order, in
// ready() and finish() only: when a bucket and all before it are complete. That order follows from
// the numbers of the parameters, so two ranks start what they share in the same order, over all
// axes, whatever the network does; a library whose exchanges queue up (NCCL) would wait for ever
// otherwise. What ranks of the expert axis share of a parameter is added up when it is reported,
// before its bucket can start. Each axis has `num_staging` buffers, used in turn. A bucket whose
// buffer is still in use starts at the next report, which waits for the exchange that uses it.
#pragma once

#include <array>
#include <vector>

#include "parallel/parameter.hpp"
#include "parallel/shared_gradients.hpp"

namespace switchyard {

class GradientSync {
 public:
  // After store.allocate(); the store outlives it.
  explicit GradientSync(ParameterStore& store);
  GradientSync(const GradientSync&) = delete;
  GradientSync& operator=(const GradientSync&) = delete;

  // After the store rearranged parameters.
  void holders_changed() { shared_.holders_changed(); }
  // The next backward pass is the step's last: gradients are final when reported.
  void arm();
  // The gradient of `parameter` is final. Without arm() before, nothing happens (accumulation).
  void ready(const Parameter& parameter);
  // Lets reductions under way advance; starts nothing. Cheap.
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
    bool in_use = false;  // until it was waited for; that test() found it done does not count
  };
  // The buffers of one axis.
  struct Lane {
    std::vector<Slot> slots;
    std::size_t num_started = 0;  // the n-th reduction uses slot n modulo their number
  };
  struct Reduction {
    int bucket = 0;
    Axis axis = Axis::dense_replica;
  };

  void make_lane(Axis axis);
  // Those before `end` in the order; stops at a buffer in use unless it may wait.
  void start_until(std::size_t end, bool may_wait);
  // `next_user` goes on after the exchange.
  static void release(Slot& slot, Stream& next_user);
  void expect_all_reported() const;

  ParameterStore& store_;
  std::vector<Reduction> order_;  // of all exchanges of a step
  std::size_t num_complete_ = 0;  // leading ones of the order whose bucket is complete
  std::size_t num_started_ = 0;
  std::array<Lane, num_axes> lanes_;
  SharedGradients shared_;
  std::vector<int> missing_;    // parameters still to come, by bucket
  std::vector<int> bucket_of_;  // by parameter, in the store's order
  std::vector<bool> reported_;  // by parameter
  bool armed_ = false;
};

}  // namespace switchyard
