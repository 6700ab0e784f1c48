// Another program beside the one that is measured: how much a busy neighbour costs a step.
#pragma once

#include <sys/types.h>

namespace switchyard::bench {

// A program of the same priority that keeps one processor busy for as long as the object lives, and
// ends by itself should this process die before.
class Disturbance {
 public:
  explicit Disturbance(int processor);  // IoError when it cannot be started
  ~Disturbance();
  Disturbance(const Disturbance&) = delete;
  Disturbance& operator=(const Disturbance&) = delete;

 private:
  pid_t pid_ = -1;
};

// How many times longer the work of a rank must take beside one busy program, whatever the rank
// does, with a thread for each of its c cores.
//   least = c / (c - 1/2)   the program has half of its core, and no time of the others is lost
//   most  = (c + 1) / c     the system lets all c + 1 have the same share of the c cores
// Both are 1 where the rank leaves a core free, and 2 for one core.
struct SchedulingFloor {
  double least = 1;
  double most = 1;
};
SchedulingFloor scheduling_floor(int num_cores, int num_threads);

}  // namespace switchyard::bench
