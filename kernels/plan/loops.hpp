// The plan twins of the kernels that are loops of our own: each records the work of its twin. Only
// the views whose sizes matter are passed. Operands are counted once, and so are operands that one
// call both reads and writes: once for each direction.
#pragma once

#include <span>

#include "kernels/sums/adamw.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels::plan {

void rms_norm_forward(const TensorView& x, const TensorView& y);
void add_rms_norm_forward(const TensorView& x, const TensorView& y);
void rms_norm_backward(const TensorView& x, const TensorView& residual_gradient);
void rope(const TensorView& x);
void swiglu_forward(const TensorView& gate_up, const TensorView& act);
void swiglu_backward(const TensorView& gate_up, const TensorView& act);
void clamped_swiglu_forward(const TensorView& gate_up, const TensorView& act);
void clamped_swiglu_backward(const TensorView& gate_up, const TensorView& act);
void add_group_bias(const TensorView& bias, const TensorView& y);
void clip_forward(const TensorView& x, const TensorView& inside);
void clip_backward(const TensorView& dx, const TensorView& inside);
void sigmoid_forward(const TensorView& gate);
void sigmoid_backward(const TensorView& gate);
void short_convolution_forward(const TensorView& x, const TensorView& weight, const TensorView& y);
void short_convolution_backward(const TensorView& x, const TensorView& weight,
                                const TensorView& dx);
void feature_map_forward(const TensorView& x, const TensorView& y);
void feature_map_backward(const TensorView& x, const TensorView& dy);
void random_features_forward(const TensorView& x, const TensorView& directions,
                             const TensorView& y);
void random_features_backward(const TensorView& x, const TensorView& directions,
                              const TensorView& dy);
void gated_norm_forward(const TensorView& x, const TensorView& z);
void gated_norm_backward(const TensorView& x, const TensorView& z);
void gated_sum(const TensorView& branches, const TensorView& gates, const TensorView& out);
void span_convolution_forward(std::int64_t width, const TensorView& x, const TensorView& logits,
                              const TensorView& y);
void span_convolution_backward(std::int64_t width, const TensorView& x, const TensorView& logits,
                               const TensorView& dy);
void multiply_elements(const TensorView& a);
void memory_gate_forward(const TensorView& memory);
void memory_gate_backward(const TensorView& memory);
void decay_gates_forward(const TensorView& gates);
void decay_gates_backward(const TensorView& dgates);
void embedding_forward(const TensorView& out);
void embedding_backward(const TensorView& dout);
void softmax_cross_entropy(const TensorView& logits, const TensorView& dlogits,
                           const TensorView& weights);
void right_answers(const TensorView& logits);
void score_softmax(const TensorView& logits);
void score_softmax_backward(const TensorView& scores);
void score_sigmoid(const TensorView& logits);
void divide_by_row_sums(const TensorView& x);
void score_sigmoid_backward(const TensorView& scores);
void select_top_k(const TensorView& scores, const TensorView& indices);
void select_fixed(const TensorView& indices);
// The number of turns depends on the logits: all that are allowed.
void sinkhorn_plan(const TensorView& logits);
void add_router_noise(const TensorView& raw);
void router_noise_backward(const TensorView& raw);
void jitter(const TensorView& x);
void give_up_second(const TensorView& indices);
void weigh(const TensorView& weights);
void weigh_backward(const TensorView& dweights);
void balance_statistics(const TensorView& scores);
// Writes nothing: what the counts of a plan are is the dispatcher's business.
void sort_by_expert(const TensorView& counts, const TensorView& indices,
                    const TensorView& token_of_row);
void add_auxiliary_losses(const TensorView& counts, const TensorView& lse);
void balance_slopes(const TensorView& slopes);
void sum_importance(const TensorView& weights, const TensorView& sums);
void noisy_load(const TensorView& logits);
void noisy_load_backward(const TensorView& gradient);
void counts_as_load(const TensorView& counts, const TensorView& sums);
void pool_rows(const TensorView& sums);
void spread_first_row(const TensorView& sums);
void add_variation(const TensorView& sums);
void variation_slopes(const TensorView& slopes);
void add_importance_gradient(const TensorView& dweights);
void add_expert_load(const TensorView& load);
void add_entropy(const TensorView& shares);
void add_marked(const TensorView& counts);
void sum_counts(const TensorView& counts, const TensorView& totals);
void add_counts(const TensorView& counts);
void spread_counts(const TensorView& counts);
void move_selection_bias(const TensorView& bias);
void count_margins(const TensorView& scores);
void move_bias_to_quantiles(const TensorView& histogram, const TensorView& bias);
void place_choices(const TensorView& places);
void arrival_order(const TensorView& numbers, const TensorView& arrival_of_row);
void group_offsets(const TensorView& counts, const TensorView& offsets);
void gather_rows(const TensorView& dst);
void convert_rows(const TensorView& from, const TensorView& to);
void scatter_rows(const TensorView& src);
void combine_rows(const TensorView& rows, const TensorView& out);
void combine_rows_backward(const TensorView& dout, const TensorView& rows);
void sum_rows(const TensorView& rows, const TensorView& out);
void restart_positions(const TensorView& positions);
// Nothing without documents: such ranges are made once a run and are no work of a step.
void fill_key_ranges(const TensorView& document_begins, const TensorView& first);
void fill_zero(const TensorView& x);
void iota(const TensorView& x);
void copy(const TensorView& src, const TensorView& dst);
void add(const TensorView& a);
void scale(const TensorView& x);
void dropout(const TensorView& x);
void adamw(std::span<const AdamWTensor> tensors);
void add_sum(const TensorView& values);
void add_sum_of_squares(std::span<const TensorView> tensors);
void add_quotients(const TensorView& values);
void write_figures(const TensorView& to);
void combine_figures(const TensorView& by_rank);
void decide_update(const TensorView& figures);

}  // namespace switchyard::kernels::plan
