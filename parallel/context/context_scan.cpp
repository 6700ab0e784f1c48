#include "parallel/context/context_scan.hpp"

#include <algorithm>
#include <utility>

#include "kernels/rows/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

ContextScan::ContextScan(Device& device, Group& group, const SequenceSplit& split,
                         std::int64_t most_runs, const kernels::RecurrenceShape& shape,
                         ExchangeProgress& progress)
    : group_(group), progress_(progress), most_runs_(most_runs) {
  expect(group.size() == split.num_ranks(), "a split over the ranks of the group");
  for (int rank = 0; rank < split.num_ranks(); ++rank)
    expect(std::ssize(split.segments(rank)) <= most_runs, "no more runs of a rank than most_runs");
  std::vector<std::pair<std::int64_t, kernels::RunPlace>> by_position;
  for (int rank = 0; rank < split.num_ranks(); ++rank) {
    std::int64_t run = 0;
    for (const PositionRange& range : split.segments(rank)) {
      by_position.emplace_back(range.begin,
                               kernels::RunPlace{.row = rank * most_runs_ + run,
                                                 .here = rank == group.rank() ? run : -1});
      ++run;
    }
  }
  std::sort(by_position.begin(), by_position.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [begin, place] : by_position) places_.push_back(place);
  const std::int64_t rows = group.size() * most_runs_ * shape.num_sequences * shape.num_heads;
  maps_ = Tensor(device, Purpose::communication, DType::f32,
                 {rows, shape.state_size() + shape.transition_size()});
  gradients_ = Tensor(device, Purpose::communication, DType::f32, {rows, shape.state_size()});
  // A rank with fewer runs than others sends what stands there; nobody reads it.
  kernels::fill_zero(maps_);
  kernels::fill_zero(gradients_);
}

TensorView ContextScan::own_rows(const TensorView& all, std::int64_t num_runs,
                                 std::int64_t rows_of_run) const {
  const std::int64_t begin = group_.rank() * most_runs_ * rows_of_run;
  return all.slice_rows(begin, begin + num_runs * rows_of_run);
}

void ContextScan::gather(const TensorView& all) {
  Event event = group_.start_all_gather(all);
  progress_.wait(event);
}

void ContextScan::forward(const kernels::RecurrenceShape& shape,
                          const kernels::RecurrenceInputs& inputs, const TensorView& states,
                          const TensorView& transitions, const TensorView& workspace,
                          const kernels::Poll& poll) {
  const std::int64_t rows_of_run = shape.num_sequences * shape.num_heads;
  kernels::recurrence_summaries(shape, inputs, own_rows(maps_, shape.num_runs(), rows_of_run),
                                workspace, poll);
  gather(maps_);
  kernels::recurrence_fold(shape, places_, maps_, states);
  kernels::copy(maps_->slice_cols(shape.state_size(), maps_->cols()), transitions);
}

void ContextScan::backward(const kernels::RecurrenceShape& shape,
                           const kernels::RecurrenceInputs& inputs,
                           const kernels::RecurrenceOutputs& outputs, const TensorView& dout,
                           const TensorView& transitions, const TensorView& d_end,
                           const TensorView& workspace, const kernels::Poll& poll) {
  const std::int64_t rows_of_run = shape.num_sequences * shape.num_heads;
  kernels::recurrence_summary_gradients(shape, inputs, outputs, dout,
                                        own_rows(gradients_, shape.num_runs(), rows_of_run),
                                        workspace, poll);
  gather(gradients_);
  kernels::recurrence_fold_backward(shape, places_, gradients_, transitions, d_end);
}

}  // namespace switchyard
