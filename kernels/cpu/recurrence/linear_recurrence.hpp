// The CPU twins of kernels/recurrence/linear_recurrence.hpp. A piece of work is one group of heads
// of one sequence, whose chunks follow each other; whoever takes it, the bits are the same.
#pragma once

#include "kernels/recurrence/linear_recurrence.hpp"

namespace switchyard::kernels::cpu {

void recurrence_forward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                        const TensorView& states, const RecurrenceOutputs& outputs,
                        const TensorView& states_end, const TensorView& workspace,
                        const Poll& poll);
void recurrence_backward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                         const TensorView& states, const RecurrenceOutputs& outputs,
                         const TensorView& dout, const TensorView& d_end,
                         const RecurrenceGradients& gradients, const TensorView& d_states,
                         const TensorView& workspace, const Poll& poll);
void recurrence_summaries(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                          const TensorView& summaries, const TensorView& workspace,
                          const Poll& poll);
void recurrence_summary_gradients(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                                  const RecurrenceOutputs& outputs, const TensorView& dout,
                                  const TensorView& d_states, const TensorView& workspace,
                                  const Poll& poll);
void recurrence_fold(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                     const TensorView& maps, const TensorView& states);
void recurrence_fold_backward(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                              const TensorView& gradients, const TensorView& transitions,
                              const TensorView& d_end);
std::int64_t recurrence_workspace_bytes(const RecurrenceShape& shape, int num_threads);

}  // namespace switchyard::kernels::cpu
