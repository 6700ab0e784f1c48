// The small numbers of a step that all ranks must know, in one exchange: after the gradients are
// reduced and before the weights change, so that all ranks clip alike, refuse alike what is not
// finite, and stop alike.
//
// They lie on the device. Kernels write what a step computes, the host adds what it knows, every
// rank's numbers go to all others, and each adds them up in rank order: the same bits on every
// rank, whatever a library does with a sum. The device itself decides from them what the update may
// do, and the host reads them when the update is on its way.
#pragma once

#include <array>
#include <vector>

#include "kernels/sums/step_figures.hpp"
#include "parallel/group/group.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

// The largest of all ranks.
struct StepMaxima {
  double max_rows = 0;      // received in a layer so far
  double memory_bytes = 0;  // peak so far
  double stop_signal = 0;   // number of the signal that asked for a stop; 0: none
  double spill_wait_seconds = 0;
  double spill_copy_seconds = 0;
};

// What the host of a rank contributes.
struct HostFigures {
  double spilled_bytes = 0;  // since the step before, to the store and back; added up
  StepMaxima maxima;
  double computed_seconds = 0;  // of computation a step, as the rank last measured them
};

// What the ranks' reports come to, losses with their scales, and what each said of itself, by rank.
struct GatheredReport {
  struct Sums {
    double cross_entropy = 0;  // as in LossSums
    double balance = 0;
    double z = 0;
    std::array<double, 3> squared_gradient_norm{};  // its parts
    double num_overflows = 0;  // of exact sums: parameters with terms too large, over all ranks
    double spilled_bytes = 0;
  } sums;
  StepMaxima maxima;
  double loss = 0;           // what is minimised
  double gradient_norm = 0;  // before clipping
  std::vector<double> computed_seconds;
};

class StepReport {
 public:
  // The group outlives the report.
  StepReport(Device& device, Group& world);
  StepReport(const StepReport&) = delete;
  StepReport& operator=(const StepReport&) = delete;

  // The losses and the norm of this rank are 0 again.
  void begin();
  // To be added to: the losses of this rank's tokens, f64 [num_losses]; the squares of the elements
  // of the gradient that it owns, f64 [3]; the number of its sums that overflowed, f64 [1].
  TensorView losses() const { return figures_->slice_rows(own_ + 0, own_ + 3); }
  TensorView squared_norm() const { return figures_->slice_rows(own_ + 3, own_ + 6); }
  TensorView num_overflows() const { return figures_->slice_rows(own_ + 6, own_ + 7); }

  // One all-gather of a few numbers, put on the device's streams, and what follows from them.
  // Collective.
  void exchange(const HostFigures& mine, const kernels::UpdateRule& rule);
  // f32 [2], of the last exchange: the gradients' factor and whether to go
  // (kernels/sums/adamw.hpp).
  const TensorView& decision() const { return decision_; }
  // The host waits for the last exchange. All zeros on the plan device.
  GatheredReport read() const;

 private:
  Group& world_;
  std::array<double, 3> loss_scale_ = {1, 1, 1};  // of the last exchange
  std::int64_t own_ = 0;                          // where this rank's numbers begin
  std::int64_t totals_ = 0;  // where what they come to begins, and then loss and norm
  Tensor figures_;           // f64
  Tensor decision_;
};

}  // namespace switchyard
