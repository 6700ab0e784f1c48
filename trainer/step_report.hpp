// The small numbers of a step that all ranks must know, in one exchange: after the gradients are
// reduced and before the weights change, so that all ranks clip alike, refuse alike what is not
// finite, and stop alike.
//
// Every rank sends all of its numbers to all others and adds them up itself, in rank order: the
// same bits on every rank, whatever the MPI library does with a sum.
#pragma once

#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard {

struct StepReport {
  // Added up over the ranks.
  struct Sums {
    double cross_entropy = 0;  // as in LossSums
    double balance = 0;
    double z = 0;
    double squared_gradient_norm = 0;  // of the elements that the rank owns
    double spilled_bytes = 0;          // since the step before, to the store and back
  } sums;
  // The largest of all ranks.
  struct Maxima {
    double max_rows = 0;      // received in a layer so far
    double memory_bytes = 0;  // peak so far
    double stop_signal = 0;   // number of the signal that asked for a stop; 0: none
    double spill_wait_seconds = 0;
    double spill_copy_seconds = 0;
  } maxima;
  // Of each rank alone: seconds of computation a step, as it last measured them.
  double computed_seconds = 0;
};

// What the ranks' reports come to, and what each said of itself, by rank.
struct GatheredReport {
  StepReport::Sums sums;
  StepReport::Maxima maxima;
  std::vector<double> computed_seconds;
};

// Collective: one all-gather of a few numbers.
GatheredReport gather(const StepReport& mine, Group& world);

}  // namespace switchyard
