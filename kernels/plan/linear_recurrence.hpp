// The plan twins of kernels/recurrence/linear_recurrence.hpp. FLOPs of a token and head in chunks
// of C, the triangles above the diagonal not counted:
//   forward   4 d_k d_v + C (d_k + d_v),    with the delta rule 2 d_k d_v + C (d_k + d_v) + C^2 / 3
//   more backward 10 d_k d_v + C (3 d_k + 2 d_v), with it 16 d_k d_v + 5.5 C (d_k + d_v)
// What the backward computes of the forward again is in these.
#pragma once

#include "kernels/recurrence/linear_recurrence.hpp"

namespace switchyard::kernels::plan {

void recurrence_forward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                        const RecurrenceOutputs& outputs);
void recurrence_backward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                         const RecurrenceOutputs& outputs, const TensorView& dout,
                         const RecurrenceGradients& gradients);
void recurrence_summaries(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                          const TensorView& summaries);
void recurrence_summary_gradients(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                                  const TensorView& dout, const TensorView& d_states);
// maps: of all runs; states: of those here.
void recurrence_fold(const RecurrenceShape& shape, const TensorView& maps,
                     const TensorView& states);

}  // namespace switchyard::kernels::plan
