// Gated linear recurrence: what a sequence is so far is a matrix of fixed size for each head, the
// state S [d_k, d_v], kept in fp32. Token t does
//   S_t = e^{g_t} S_{t-1} + k_t u_t^T      o_t = scale S_t^T q_t
//   u_t = v_t                                        without the delta rule
//   u_t = beta_t (v_t - e^{g_t} S_{t-1}^T k_t)       with it (Schlag et al. 2021)
// A log gate g <= 0 is a number for each token and head. Linear attention, retention, lightning
// attention, Mamba-2's SSD, DeltaNet and gated DeltaNet are this one recurrence (docs/mixers.md).
//
// It is computed by chunks of C tokens (Yang et al., "Parallelizing Linear Transformers with the
// Delta Rule", 2024; Dao and Gu, "Transformers are SSMs", 2024), G_i being the sum of gates from
// the chunk's first token to its i-th, D_ij = e^{G_i - G_j} for i >= j and 0 above, E_i = e^{G_i},
// F_i = e^{G_C - G_i}:
//   O = E (Q S) + ((Q K^T) D) U      S' = e^{G_C} S + (F K)^T U
//   U = V, or U = (I + M)^-1 (beta (V - E (K S))) with M_ij = beta_i (k_i . k_j) D_ij for i > j
// Only differences of gates that are at most 0 are exponentiated.
//
// Runs: a rank may hold several stretches of consecutive positions of a sequence. Each starts from
// a state that it is given, since what lies between is elsewhere: a run is the affine map
// S -> T S + S_ext, T being a number or, with the delta rule, a matrix [d_k, d_k].
// A document's first token finds the state empty.
//
// `exclusive` reading, without gates and delta rule: chunks are segments of positions, which begin
// at the multiples of C wherever the rows are, and o_t = scale S^T q_t with the state S before t's
// segment (Infini-attention: Munkhdalai et al. 2024). A mean over nothing is 0. Runs begin at the
// multiples of C.
//
// Legend: S sequences of n rows here, R runs, A heads, G groups of heads that share queries and
// keys, d_k, d_v widths; d_v' = d_v + 1 if it is normalized. Rows may be strided.
#pragma once

#include <span>

#include "kernels/attention/key_ranges.hpp"
#include "kernels/gradient_sum.hpp"
#include "kernels/poll.hpp"
#include "tensor/device.hpp"
#include "tensor/position_range.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct RecurrenceShape {
  std::int64_t num_sequences = 0;
  std::span<const PositionRange> runs = {};  // positions of a sequence's rows, ascending and apart
  std::int64_t num_heads = 0;
  std::int64_t num_groups = 0;  // divides num_heads; head h reads group h / (A / G)
  std::int64_t key_width = 0;
  std::int64_t value_width = 0;
  std::int64_t chunk = 64;
  float scale = 1.0f;
  bool delta = false;
  // Values have a column of ones beside them, and what it gives divides the others: a mean.
  bool normalized = false;
  bool exclusive = false;  // reads what was before the token's segment, of `chunk` tokens
  // By sequence, the positions above 0 at which a document begins; empty: documents do not matter.
  DocumentStarts document_starts = {};

  std::int64_t length() const { return num_positions(runs); }
  std::int64_t num_runs() const { return static_cast<std::int64_t>(runs.size()); }
  std::int64_t state_cols() const { return value_width + (normalized ? 1 : 0); }
  std::int64_t state_size() const { return key_width * state_cols(); }
  std::int64_t transition_size() const { return delta ? key_width * key_width : 1; }
  std::int64_t key_cols() const { return num_groups * key_width; }
  std::int64_t value_cols() const { return num_heads * value_width; }
};

struct RecurrenceInputs {
  TensorView q;           // [S n, G d_k], f32 or bf16
  TensorView k;           // [S n, G d_k]
  TensorView v;           // [S n, A d_v]
  TensorView gates = {};  // f32 [S n, A], or [1, A] of all tokens; empty: 0
  TensorView betas = {};  // f32 [S n, A], with the delta rule
  TensorView steps = {};  // f32 [S n, A]: values are multiplied by them; empty: by 1
  TensorView skip = {};   // f32 [A]: o += skip v, v before it is multiplied; empty: 0
};

// What a forward pass leaves for the backward.
struct RecurrenceOutputs {
  TensorView out;                // [S n, A d_v]
  TensorView denominators = {};  // f32 [S n, A], if it is normalized
};

struct RecurrenceGradients {
  TensorView dq, dk, dv;   // written, as q, k, v
  TensorView dgates = {};  // f32 [S n, A], of gates [S n, A]: written
  TensorView dbetas = {};  // f32 [S n, A]: written
  TensorView dsteps = {};  // f32 [S n, A]: written
  TensorView dskip = {};   // f32 [A]: added to
};

// states, states_end: f32 [R S A, d_k d_v'], before the first token of each run and behind its
// last; an empty `states`: zeros; an empty states_end is not wanted.
void recurrence_forward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                        const TensorView& states, const RecurrenceOutputs& outputs,
                        const TensorView& states_end, const TensorView& workspace,
                        const Poll& poll = {});

// d_end: the gradients of states_end, empty: zeros; d_states: those of `states`, empty: not wanted.
void recurrence_backward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                         const TensorView& states, const RecurrenceOutputs& outputs,
                         const TensorView& dout, const TensorView& d_end,
                         const RecurrenceGradients& gradients, const TensorView& d_states,
                         const TensorView& workspace, const Poll& poll = {});

// Each run as a map: f32 [R S A, d_k d_v' + T]: S_ext, then T. Reads k, v, gates, betas, steps.
void recurrence_summaries(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                          const TensorView& summaries, const TensorView& workspace,
                          const Poll& poll = {});
// The gradient of each run's first state if nothing came from behind it: f32 [R S A, d_k d_v'].
void recurrence_summary_gradients(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                                  const RecurrenceOutputs& outputs, const TensorView& dout,
                                  const TensorView& d_states, const TensorView& workspace,
                                  const Poll& poll = {});

// Runs of a sequence in the order of their positions, wherever they are held.
struct RunPlace {
  std::int64_t row = 0;   // of its maps: row * S A + s * A + h
  std::int64_t here = 0;  // which of this rank's runs it is; -1: it is another rank's
};
// states f32 [R S A, d_k d_v'], written for the runs here: the state before each, from empty ones
// before the first. maps: f32 [rows S A, d_k d_v' + T].
void recurrence_fold(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                     const TensorView& maps, const TensorView& states);
// The same backwards: what the state behind each run here is worth. gradients: f32 [rows S A, d_k
// d_v'] of recurrence_summary_gradients; transitions: f32 [rows S A, T].
void recurrence_fold_backward(const RecurrenceShape& shape, std::span<const RunPlace> runs,
                              const TensorView& gradients, const TensorView& transitions,
                              const TensorView& d_end);

// For all of these, on the device or that for which it plans (threads have scratch of their own).
std::int64_t recurrence_workspace_bytes(const RecurrenceShape& shape, const PlanTarget& target);

}  // namespace switchyard::kernels
