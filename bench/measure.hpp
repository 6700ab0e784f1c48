// How every benchmark measures: warm-up, repetitions, and what is made of their times. A repetition
// takes as long as on the slowest rank, since that is what the others wait for.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "parallel/group/group.hpp"

namespace switchyard::bench {

struct Repeats {
  int num_warmup = 2;
  int num_steps = 5;  // repetitions measured; at least 1
};

// Seconds of one call.
struct Times {
  double min = 0;
  double median = 0;
  double max = 0;
};

// Collective. All ranks start a repetition together; one of a short call makes so many calls that
// it takes some milliseconds, and counts their mean.
Times measure(Group& world, const Repeats& repeats, const std::function<void()>& call);
Times times_of(std::vector<double> seconds);  // at least one

// Seconds of calls while nothing else runs on the machine.
class QuietTimer {
 public:
  // patience: how often it waits for a moment in all.
  explicit QuietTimer(Group& world, int patience = 600) : world_(world), patience_(patience) {}

  // Collective. Seconds of a call that `prepare` goes before, untimed (may be empty): the median of
  // so many repetitions in which the system took no core of any rank away
  // for another program. After one in which it did, a moment passes (the threads of kernels
  // remember it, kernels/team.hpp) and another is made, as long as the timer has patience: some
  // hundred times. Then, and where a program goes on and on, the quickest one counts.
  double seconds_of(const std::function<void()>& prepare, const std::function<void()>& call,
                    int num_repetitions);

 private:
  Group& world_;
  int patience_;
};

// Ceilings of all ranks together, measured on all at once. Collective.
// Products: floating-point operations a second (kernels/peak.hpp).
double measure_products(Group& world, Device& device, DType precision);
// Copying of large tensors on all threads: bytes read and written a second.
double measure_copies(Group& world, Device& device);

// Numbers in (-1, 1), different for each `stream`, of which some thousands repeat; f32 or bf16,
// contiguous. Nothing on the plan device.
void fill_random(const TensorView& view, std::uint32_t stream);

std::string_view precision_name(DType dtype);  // "fp32", "bf16"

}  // namespace switchyard::bench
