// States of a linear recurrence (kernels/recurrence/linear_recurrence.hpp) where sequences are
// split over ranks. A run of consecutive positions is an affine map of the state, S -> T S + S_ext;
// each rank makes the maps of its runs, one all-gather brings every rank all of them, and each
// folds them in the order of the positions up to its own runs (Sun et al., "LASP-2", 2025, where
// runs are one a rank; zigzag has two). Backwards the same with the gradients of the states, the
// other way round, and the maps' T of the forward pass. Bytes do not depend on how long sequences
// are:
//   forward   (P - 1) r S A (d_k d_v' + T) 4    backward   (P - 1) r S A d_k d_v' 4
// for P ranks with at most r runs each. Sums have a fixed order. One object for all layers of a
// shape; borrows the group.
#pragma once

#include <vector>

#include "kernels/recurrence/linear_recurrence.hpp"
#include "parallel/context/sequence_split.hpp"
#include "parallel/group/exchange_progress.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

class ContextScan {
 public:
  // shape: that of the calls, of which the sizes count. split: of sequences over the group, whose
  // ranks hold at most `most_runs` runs of a sequence.
  ContextScan(Device& device, Group& group, const SequenceSplit& split, std::int64_t most_runs,
              const kernels::RecurrenceShape& shape, ExchangeProgress& progress);

  // Rows of the transitions of all ranks' runs.
  std::int64_t num_maps() const { return maps_->rows(); }

  // states: f32 [R S A, d_k d_v'] of this rank's runs, written. transitions: f32 [num_maps(), T],
  // written, for the backward pass.
  void forward(const kernels::RecurrenceShape& shape, const kernels::RecurrenceInputs& inputs,
               const TensorView& states, const TensorView& transitions, const TensorView& workspace,
               const kernels::Poll& poll);
  // d_end: f32 [R S A, d_k d_v'], written: the gradients of the states behind this rank's runs.
  void backward(const kernels::RecurrenceShape& shape, const kernels::RecurrenceInputs& inputs,
                const kernels::RecurrenceOutputs& outputs, const TensorView& dout,
                const TensorView& transitions, const TensorView& d_end, const TensorView& workspace,
                const kernels::Poll& poll);

 private:
  // This rank's rows of a tensor of all ranks' runs.
  TensorView own_rows(const TensorView& all, std::int64_t num_runs, std::int64_t rows_of_run) const;
  void gather(const TensorView& all);

  Group& group_;
  ExchangeProgress& progress_;
  std::int64_t most_runs_;                 // r
  std::vector<kernels::RunPlace> places_;  // in the order of the positions
  Tensor maps_;                            // f32 [P r S A, d_k d_v' + T]
  Tensor gradients_;                       // f32 [P r S A, d_k d_v']
};

}  // namespace switchyard
