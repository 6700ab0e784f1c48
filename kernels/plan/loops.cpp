#include "kernels/plan/loops.hpp"

#include "kernels/plan/record.hpp"

namespace switchyard::kernels::plan {

namespace {

double numel(const TensorView& view) {
  return static_cast<double>(view.numel());
}
double bytes(const TensorView& view) {
  return static_cast<double>(view.num_bytes());
}

// An exponential counts as this many operations: the polynomial of degree 6 and the reduction.
constexpr double exp_flops = 16;

}  // namespace

void rms_norm_forward(const TensorView& x, const TensorView& y) {
  record(x, 4 * numel(x), bytes(x) + bytes(y));
}

void add_rms_norm_forward(const TensorView& x, const TensorView& y) {
  record(x, 5 * numel(x), 3 * bytes(x) + bytes(y));
}

void rms_norm_backward(const TensorView& x, const TensorView& residual_gradient) {
  const double residual = residual_gradient.empty() ? 0 : bytes(residual_gradient);
  record(x, 10 * numel(x), 3 * bytes(x) + residual);
}

void rope(const TensorView& x) {
  record(x, 3 * numel(x), 2 * bytes(x));
}

void swiglu_forward(const TensorView& gate_up, const TensorView& act) {
  record(act, (exp_flops + 4) * numel(act), bytes(gate_up) + bytes(act));
}

void swiglu_backward(const TensorView& gate_up, const TensorView& act) {
  record(act, (exp_flops + 10) * numel(act), 2 * bytes(gate_up) + 2 * bytes(act));
}

void clamped_swiglu_forward(const TensorView& gate_up, const TensorView& act) {
  record(act, (exp_flops + 9) * numel(act), bytes(gate_up) + bytes(act));
}

void clamped_swiglu_backward(const TensorView& gate_up, const TensorView& act) {
  record(act, (exp_flops + 17) * numel(act), 2 * bytes(gate_up) + 2 * bytes(act));
}

void add_group_bias(const TensorView& bias, const TensorView& y) {
  record(y, numel(y), bytes(bias) + 2 * bytes(y));
}

void clip_forward(const TensorView& x, const TensorView& inside) {
  record(x, 2 * numel(x), 2 * bytes(x) + (inside.device == nullptr ? 0 : bytes(inside)));
}

void clip_backward(const TensorView& dx, const TensorView& inside) {
  record(dx, numel(dx), 2 * bytes(dx) + bytes(inside));
}

void sigmoid_forward(const TensorView& gate) {
  record(gate, (exp_flops + 2) * numel(gate), 2 * bytes(gate));
}

void sigmoid_backward(const TensorView& gate) {
  record(gate, 3 * numel(gate), 3 * bytes(gate));
}

void short_convolution_forward(const TensorView& x, const TensorView& weight, const TensorView& y) {
  const double taps = numel(weight) / static_cast<double>(x.cols());
  record(x, 2 * taps * numel(y), bytes(x) + bytes(y));
}

void short_convolution_backward(const TensorView& x, const TensorView& weight,
                                const TensorView& dx) {
  const double taps = numel(weight) / static_cast<double>(x.cols());
  record(x, 4 * taps * numel(x), 2 * bytes(x) + bytes(dx));
}

void feature_map_forward(const TensorView& x, const TensorView& y) {
  record(x, (exp_flops + 4) * numel(y), bytes(x) + bytes(y));
}

void feature_map_backward(const TensorView& x, const TensorView& dy) {
  record(x, (exp_flops + 8) * numel(dy), 2 * bytes(x) + bytes(dy));
}

// Each feature is a product with its direction, forward, and two backward.
void random_features_forward(const TensorView& x, const TensorView& directions,
                             const TensorView& y) {
  record(x, (2 * static_cast<double>(directions.cols()) + exp_flops + 4) * numel(y),
         bytes(x) + bytes(directions) + bytes(y));
}

void random_features_backward(const TensorView& x, const TensorView& directions,
                              const TensorView& dy) {
  record(x, (4 * static_cast<double>(directions.cols()) + exp_flops + 6) * numel(dy),
         2 * bytes(x) + bytes(directions) + bytes(dy));
}

void gated_norm_forward(const TensorView& x, const TensorView& z) {
  if (z.empty()) return record(x, 4 * numel(x), 2 * bytes(x));
  record(x, 4 * numel(x) + (exp_flops + 4) * numel(z), 2 * bytes(x) + bytes(z));
}

void gated_norm_backward(const TensorView& x, const TensorView& z) {
  if (z.empty()) return record(x, 10 * numel(x), 3 * bytes(x));
  record(x, 10 * numel(x) + (exp_flops + 10) * numel(z), 3 * bytes(x) + 2 * bytes(z));
}

void gated_sum(const TensorView& branches, const TensorView& gates, const TensorView& out) {
  record(out, 2 * numel(branches), bytes(branches) + bytes(gates) + bytes(out));
}

void span_convolution_forward(std::int64_t width, const TensorView& x, const TensorView& logits,
                              const TensorView& y) {
  record(y, 2 * static_cast<double>(width) * numel(y) + (exp_flops + 2) * numel(logits),
         bytes(x) + bytes(logits) + bytes(y));
}

void span_convolution_backward(std::int64_t width, const TensorView& x, const TensorView& logits,
                               const TensorView& dy) {
  record(dy, 4 * static_cast<double>(width) * numel(dy) + (exp_flops + 6) * numel(logits),
         bytes(x) + 2 * bytes(logits) + bytes(dy) + 4 * numel(x));
}

void multiply_elements(const TensorView& a) {
  record(a, numel(a), 3 * bytes(a));
}

// A logarithm counts as an exponential.
void memory_gate_forward(const TensorView& memory) {
  record(memory, 3 * numel(memory), 3 * bytes(memory));
}

void memory_gate_backward(const TensorView& memory) {
  record(memory, 5 * numel(memory), 5 * bytes(memory));
}

void decay_gates_forward(const TensorView& gates) {
  record(gates, (2 * exp_flops + 4) * numel(gates), 3 * bytes(gates));
}

void decay_gates_backward(const TensorView& dgates) {
  record(dgates, (3 * exp_flops + 8) * numel(dgates), 4 * bytes(dgates));
}

void embedding_forward(const TensorView& out) {
  record(out, 0, numel(out) * static_cast<double>(size_of(DType::f32)) + bytes(out));
}

void embedding_backward(const TensorView& dout) {
  record(dout, numel(dout),
         bytes(dout) + 2 * numel(dout) * static_cast<double>(size_of(DType::f32)));
}

void softmax_cross_entropy(const TensorView& logits, const TensorView& dlogits,
                           const TensorView& weights) {
  if (!weights.empty()) record(weights, 2 * numel(weights), bytes(weights));
  if (dlogits.empty()) return record(logits, (exp_flops + 2) * numel(logits), bytes(logits));
  record(logits, 2 * (exp_flops + 2) * numel(logits), 2 * bytes(logits) + bytes(dlogits));
}

void right_answers(const TensorView& logits) {
  record(logits, numel(logits), bytes(logits));
}

void score_softmax(const TensorView& logits) {
  record(logits, (exp_flops + 4) * numel(logits), 2 * bytes(logits));
}

void score_softmax_backward(const TensorView& scores) {
  record(scores, 5 * numel(scores), 2 * bytes(scores));
}

void score_sigmoid(const TensorView& logits) {
  record(logits, (2 * exp_flops + 4) * numel(logits), 2 * bytes(logits));
}

void divide_by_row_sums(const TensorView& x) {
  record(x, 2 * numel(x), 2 * bytes(x));
}

void score_sigmoid_backward(const TensorView& scores) {
  record(scores, (exp_flops + 10) * numel(scores), 3 * bytes(scores));
}

// Comparisons are not counted.
void select_top_k(const TensorView& scores, const TensorView& indices) {
  record(scores, 0, bytes(scores) + bytes(indices));
}

void select_fixed(const TensorView& indices) {
  record(indices, 0, bytes(indices));
}

void sinkhorn_plan(const TensorView& logits) {
  constexpr double turns = 100;
  record(logits, (exp_flops + 4 * turns) * numel(logits), 2 * (1 + turns) * bytes(logits));
}

// A logarithm and a normal number cost about as much as exponentials.
void add_router_noise(const TensorView& raw) {
  record(raw, (4 * exp_flops + 4) * numel(raw), 3 * bytes(raw));
}

void router_noise_backward(const TensorView& raw) {
  record(raw, (4 * exp_flops + 4) * numel(raw), 3 * bytes(raw));
}

void jitter(const TensorView& x) {
  record(x, 4 * numel(x), 2 * bytes(x));
}

void give_up_second(const TensorView& indices) {
  record(indices, 0, 2 * bytes(indices));
}

void weigh(const TensorView& weights) {
  record(weights, 2 * numel(weights), 2 * bytes(weights));
}

void weigh_backward(const TensorView& dweights) {
  record(dweights, 5 * numel(dweights), 3 * bytes(dweights));
}

void balance_statistics(const TensorView& scores) {
  record(scores, numel(scores), bytes(scores));
}

void sort_by_expert(const TensorView& counts, const TensorView& indices,
                    const TensorView& token_of_row) {
  record(counts, 0, bytes(counts) + 3 * bytes(indices) + bytes(token_of_row));
}

void add_auxiliary_losses(const TensorView& counts, const TensorView& lse) {
  record(lse, 4 * numel(counts) + 2 * numel(lse), 2 * bytes(counts) + bytes(lse));
}

void balance_slopes(const TensorView& slopes) {
  record(slopes, numel(slopes), 2 * bytes(slopes));
}

void sum_importance(const TensorView& weights, const TensorView& sums) {
  record(weights, numel(weights), 2 * bytes(weights) + bytes(sums));
}

// A sort of a token's logits, and for each of them the noise, a softplus and an error function.
void noisy_load(const TensorView& logits) {
  record(logits, 40 * numel(logits), 2 * bytes(logits));
}

void noisy_load_backward(const TensorView& gradient) {
  record(gradient, 44 * numel(gradient), 4 * bytes(gradient));
}

void counts_as_load(const TensorView& counts, const TensorView& sums) {
  record(sums, 0, bytes(counts) + bytes(sums));
}

void pool_rows(const TensorView& sums) {
  record(sums, numel(sums), bytes(sums));
}

void spread_first_row(const TensorView& sums) {
  record(sums, 0, bytes(sums));
}

void add_variation(const TensorView& sums) {
  record(sums, 3 * numel(sums), bytes(sums));
}

// Reads sums twice as wide.
void variation_slopes(const TensorView& slopes) {
  record(slopes, 5 * numel(slopes), 3 * bytes(slopes));
}

void add_importance_gradient(const TensorView& dweights) {
  record(dweights, 2 * numel(dweights), 3 * bytes(dweights));
}

void add_expert_load(const TensorView& load) {
  record(load, numel(load), 2 * bytes(load) + bytes(load) / 2);
}

void add_entropy(const TensorView& shares) {
  record(shares, 10 * numel(shares), bytes(shares));
}

void add_marked(const TensorView& counts) {
  record(counts, numel(counts), 2 * bytes(counts));
}

void sum_counts(const TensorView& counts, const TensorView& totals) {
  record(totals, numel(counts), bytes(counts) + bytes(totals));
}

void add_counts(const TensorView& counts) {
  record(counts, numel(counts), 3 * bytes(counts));
}

void spread_counts(const TensorView& counts) {
  record(counts, 0, bytes(counts));
}

// Reads the counts, twice as wide as the bias, which is read and written.
void move_selection_bias(const TensorView& bias) {
  record(bias, 3 * numel(bias), 4 * bytes(bias));
}

// Each margin adds to a count.
void count_margins(const TensorView& scores) {
  record(scores, 6 * numel(scores), 2 * bytes(scores) + 4 * bytes(scores));
}

void move_bias_to_quantiles(const TensorView& histogram, const TensorView& bias) {
  record(bias, 2 * numel(histogram), 2 * bytes(histogram) + 2 * bytes(bias));
}

void place_choices(const TensorView& places) {
  record(places, 0, 2 * bytes(places));
}

void arrival_order(const TensorView& numbers, const TensorView& arrival_of_row) {
  record(arrival_of_row, 0, bytes(arrival_of_row) + (numbers.empty() ? 0 : bytes(numbers)));
}

void group_offsets(const TensorView& counts, const TensorView& offsets) {
  record(offsets, 0, bytes(counts) + bytes(offsets));
}

void convert_rows(const TensorView& from, const TensorView& to) {
  record(to, 0, bytes(from) + bytes(to));
}

void gather_rows(const TensorView& dst) {
  record(dst, 0, 2 * bytes(dst));
}

void scatter_rows(const TensorView& src) {
  record(src, 0, 2 * bytes(src));
}

void combine_rows(const TensorView& rows, const TensorView& out) {
  record(out, 2 * numel(rows), bytes(rows) + bytes(out));
}

void combine_rows_backward(const TensorView& dout, const TensorView& rows) {
  record(dout, 3 * numel(rows), bytes(dout) + 2 * bytes(rows));
}

void sum_rows(const TensorView& rows, const TensorView& out) {
  record(out, numel(rows), bytes(rows) + bytes(out));
}

void restart_positions(const TensorView& positions) {
  record(positions, 0, 3 * bytes(positions));
}

void fill_key_ranges(const TensorView& document_begins, const TensorView& first) {
  if (document_begins.empty()) return;
  record(first, 0, 2 * bytes(first));
}

void fill_zero(const TensorView& x) {
  record(x, 0, bytes(x));
}

void iota(const TensorView& x) {
  record(x, 0, bytes(x));
}

void copy(const TensorView& src, const TensorView& dst) {
  record(src, 0, bytes(src) + bytes(dst));
}

void add(const TensorView& a) {
  record(a, numel(a), 3 * bytes(a));
}

void scale(const TensorView& x) {
  record(x, numel(x), 2 * bytes(x));
}

// Philox gives four words in about 100 integer operations.
void dropout(const TensorView& x) {
  record(x, 25 * numel(x), 2 * bytes(x));
}

// Reads four arrays and writes three.
void adamw(std::span<const AdamWTensor> tensors) {
  const TensorView* any = nullptr;
  double elements = 0, moved = 0;
  for (const AdamWTensor& tensor : tensors) {
    if (tensor.value.empty()) continue;
    any = &tensor.value;
    elements += numel(tensor.value);
    moved += 6 * bytes(tensor.value) + bytes(tensor.gradient);
  }
  if (any != nullptr) record(*any, 16 * elements, moved);
}

void add_sum(const TensorView& values) {
  record(values, numel(values), bytes(values));
}

void add_sum_of_squares(std::span<const TensorView> tensors) {
  const TensorView* any = nullptr;
  double elements = 0, read = 0;
  for (const TensorView& x : tensors) {
    if (x.empty()) continue;
    any = &x;
    elements += numel(x);
    read += bytes(x);
  }
  if (any != nullptr) record(*any, 2 * elements, read);
}

void add_quotients(const TensorView& values) {
  record(values, 2 * numel(values), 3 * bytes(values));
}

void write_figures(const TensorView& to) {
  record(to, 0, bytes(to));
}

void combine_figures(const TensorView& by_rank) {
  record(by_rank, numel(by_rank), bytes(by_rank));
}

void decide_update(const TensorView& figures) {
  record(figures, 8, bytes(figures));
}

}  // namespace switchyard::kernels::plan
