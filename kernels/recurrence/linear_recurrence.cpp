#include "kernels/recurrence/linear_recurrence.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/linear_recurrence.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/linear_recurrence.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels {

namespace {

std::int64_t num_rows(const RecurrenceShape& s) {
  return s.num_sequences * s.length();
}

// A number for each token and head.
void check_tokens(const RecurrenceShape& s, const TensorView& view, std::string_view what) {
  expect_matrix(view, DType::f32, num_rows(s), s.num_heads, what);
}

void check_inputs(const RecurrenceShape& s, const RecurrenceInputs& in) {
  expect(s.num_groups > 0 && s.num_heads > 0 && s.num_heads % s.num_groups == 0,
         "a number of heads that the groups divide");
  expect(s.key_width > 0 && s.value_width > 0 && s.chunk > 0, "positive widths and chunks");
  expect(s.document_starts.empty() || std::ssize(s.document_starts) == s.num_sequences,
         "document starts of every sequence, or none");
  expect(is_float(in.k.dtype), "keys of type f32 or bf16");
  for (const TensorView* view : {&in.q, &in.k})
    expect_matrix(*view, in.k.dtype, num_rows(s), s.key_cols(),
                  "queries and keys: [sequences * rows, groups * key width] of one type");
  expect_matrix(in.v, in.k.dtype, num_rows(s), s.value_cols(),
                "values: [sequences * rows, heads * value width] as the keys");
  expect(in.gates.empty() || (in.gates.dtype == DType::f32 && in.gates.cols() == s.num_heads &&
                              (in.gates.rows() == num_rows(s) || in.gates.rows() == 1)),
         "gates: f32 [sequences * rows, heads], or one row");
  expect(!s.exclusive || (!s.delta && in.gates.empty()),
         "no gates and no delta rule where reading is exclusive");
  for (const PositionRange& run : s.runs)
    expect(!s.exclusive || run.begin % s.chunk == 0, "runs that begin with a segment");
  expect(in.betas.empty() != s.delta, "betas with the delta rule, and without it none");
  if (s.delta) check_tokens(s, in.betas, "betas: f32 [sequences * rows, heads]");
  if (!in.steps.empty()) check_tokens(s, in.steps, "steps: f32 [sequences * rows, heads]");
  if (!in.skip.empty()) expect_vector(in.skip, DType::f32, s.num_heads, "skip: f32 [heads]");
  expect(in.skip.empty() || !s.normalized, "nothing skipped past a mean");
}

void check_outputs(const RecurrenceShape& s, const RecurrenceInputs& in,
                   const RecurrenceOutputs& outputs) {
  expect_matrix(outputs.out, in.k.dtype, num_rows(s), s.value_cols(), "out like the values");
  if (s.normalized)
    check_tokens(s, outputs.denominators, "denominators: f32 [sequences * rows, heads]");
}

void check_blocks(const RecurrenceShape& s, const TensorView& blocks, std::int64_t size) {
  expect_matrix(blocks, DType::f32, s.num_runs() * s.num_sequences * s.num_heads, size,
                "f32 [runs * sequences * heads, size of a state]");
}

void check_workspace(const RecurrenceShape& s, const TensorView& workspace) {
  const PlanTarget least{.device = DeviceKind::cpu, .num_threads = 1};
  expect(workspace.dtype == DType::u8 && workspace.is_contiguous() &&
             workspace.num_bytes() >= recurrence_workspace_bytes(s, least),
         "a workspace of recurrence_workspace_bytes");
}

void check_gradients(const RecurrenceShape& s, const RecurrenceInputs& in,
                     const RecurrenceGradients& gradients) {
  for (const TensorView* view : {&gradients.dq, &gradients.dk})
    expect_matrix(*view, in.k.dtype, num_rows(s), s.key_cols(), "dq and dk like q and k");
  expect_matrix(gradients.dv, in.k.dtype, num_rows(s), s.value_cols(), "dv like v");
  if (!gradients.dgates.empty()) check_tokens(s, gradients.dgates, "dgates like gates");
  if (s.delta) check_tokens(s, gradients.dbetas, "dbetas like betas");
  if (!in.steps.empty()) check_tokens(s, gradients.dsteps, "dsteps like steps");
  if (!in.skip.empty()) expect_vector(gradients.dskip, DType::f32, s.num_heads, "dskip like skip");
}

}  // namespace

void recurrence_forward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                        const TensorView& states, const RecurrenceOutputs& outputs,
                        const TensorView& states_end, const TensorView& workspace,
                        const Poll& poll) {
  if (num_rows(shape) == 0) return;
  check_inputs(shape, inputs);
  check_outputs(shape, inputs, outputs);
  for (const TensorView* blocks : {&states, &states_end})
    if (!blocks->empty()) check_blocks(shape, *blocks, shape.state_size());
  check_workspace(shape, workspace);
  dispatch(
      *inputs.q.device,
      [&] { cpu::recurrence_forward(shape, inputs, states, outputs, states_end, workspace, poll); },
      [&] { plan::recurrence_forward(shape, inputs, outputs); });
}

void recurrence_backward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                         const TensorView& states, const RecurrenceOutputs& outputs,
                         const TensorView& dout, const TensorView& d_end,
                         const RecurrenceGradients& gradients, const TensorView& d_states,
                         const TensorView& workspace, const Poll& poll) {
  if (num_rows(shape) == 0) return;
  check_inputs(shape, inputs);
  if (shape.normalized) check_outputs(shape, inputs, outputs);
  expect_matrix(dout, inputs.k.dtype, num_rows(shape), shape.value_cols(), "dout like out");
  check_gradients(shape, inputs, gradients);
  for (const TensorView* blocks : {&states, &d_end, &d_states})
    if (!blocks->empty()) check_blocks(shape, *blocks, shape.state_size());
  check_workspace(shape, workspace);
  dispatch(
      *inputs.q.device,
      [&] {
        cpu::recurrence_backward(shape, inputs, states, outputs, dout, d_end, gradients, d_states,
                                 workspace, poll);
      },
      [&] { plan::recurrence_backward(shape, inputs, outputs, dout, gradients); });
}

void recurrence_summaries(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                          const TensorView& summaries, const TensorView& workspace,
                          const Poll& poll) {
  if (num_rows(shape) == 0) return;
  check_inputs(shape, inputs);
  check_blocks(shape, summaries, shape.state_size() + shape.transition_size());
  check_workspace(shape, workspace);
  dispatch(
      *inputs.k.device,
      [&] { cpu::recurrence_summaries(shape, inputs, summaries, workspace, poll); },
      [&] { plan::recurrence_summaries(shape, inputs, summaries); });
}

void recurrence_summary_gradients(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                                  const RecurrenceOutputs& outputs, const TensorView& dout,
                                  const TensorView& d_states, const TensorView& workspace,
                                  const Poll& poll) {
  if (num_rows(shape) == 0) return;
  check_inputs(shape, inputs);
  if (shape.normalized) check_outputs(shape, inputs, outputs);
  expect_matrix(dout, inputs.k.dtype, num_rows(shape), shape.value_cols(), "dout like out");
  check_blocks(shape, d_states, shape.state_size());
  check_workspace(shape, workspace);
  dispatch(
      *inputs.k.device,
      [&] {
        cpu::recurrence_summary_gradients(shape, inputs, outputs, dout, d_states, workspace, poll);
      },
      [&] { plan::recurrence_summary_gradients(shape, inputs, dout, d_states); });
}

namespace {

void check_fold(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                const TensorView& maps, std::int64_t size, const TensorView& states) {
  check_blocks(shape, states, shape.state_size());
  expect(maps.dtype == DType::f32 && maps.cols() == size, "maps of the size of a run's");
  for (const RunPlace& run : runs)
    expect(run.here < shape.num_runs() &&
               (run.row + 1) * shape.num_sequences * shape.num_heads <= maps.rows(),
           "runs that are there");
}

}  // namespace

void recurrence_fold(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                     const TensorView& maps, const TensorView& states) {
  check_fold(shape, runs, maps, shape.state_size() + shape.transition_size(), states);
  dispatch(
      *states.device, [&] { cpu::recurrence_fold(shape, runs, maps, states); },
      [&] { plan::recurrence_fold(shape, maps, states); });
}

void recurrence_fold_backward(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                              const TensorView& gradients, const TensorView& transitions,
                              const TensorView& d_end) {
  check_fold(shape, runs, gradients, shape.state_size(), d_end);
  expect(transitions.dtype == DType::f32 && transitions.cols() == shape.transition_size() &&
             transitions.rows() == gradients.rows(),
         "transitions of the same runs");
  dispatch(
      *d_end.device,
      [&] { cpu::recurrence_fold_backward(shape, runs, gradients, transitions, d_end); },
      [&] { plan::recurrence_fold(shape, gradients, d_end); });
}

std::int64_t recurrence_workspace_bytes(const RecurrenceShape& shape, const PlanTarget& target) {
  return cpu::recurrence_workspace_bytes(
      shape, target.num_threads > 0 ? target.num_threads : num_threads());
}

}  // namespace switchyard::kernels
