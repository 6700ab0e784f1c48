// Where the time of one step went in each layer with experts: their computation, what travels, and
// the waiting for slower ranks, apart. Only in steps that are asked for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/group/group.hpp"
#include "tensor/device.hpp"

namespace switchyard {

// Of both passes of a step, all micro-steps. Of exchanges the ranks need each other, so the one
// that comes last waits for nobody: what it takes is the exchange itself, and what others take
// longer is waiting. A rank that is always the slowest shows this exactly; where ranks take turns,
// a part of the waiting counts to the exchange.
struct LayerSeconds {
  double experts = 0;   // of computation, shared experts included; mean over ranks
  double exchange = 0;  // dispatch and combine, sorting of rows included; of the quickest rank
  double wait = 0;      // by which ranks took longer for these, mean over ranks
};

// mine: of a rank, seconds of experts and of exchanges by layer. What the ranks' come to;
// collective.
std::vector<LayerSeconds> layer_seconds_of_ranks(std::span<const double> experts,
                                                 std::span<const double> exchanges, Group& world);

class LayerMeter {
 public:
  // layers: those with experts. All outlive the meter.
  LayerMeter(Device& device, std::vector<std::int64_t> layers, Group& world);
  ~LayerMeter();
  LayerMeter(const LayerMeter&) = delete;
  LayerMeter& operator=(const LayerMeter&) = delete;

  // Around a step; no one else may keep the profile's marks in it.
  void begin_step();
  // In the order of the layers; the host waits for the step. Collective.
  std::vector<LayerSeconds> end_step();

 private:
  Device& device_;
  std::vector<std::int64_t> layers_;
  Group& world_;
  std::vector<PartMark> marks_;
};

}  // namespace switchyard
