#include "kernels/plan/attention.hpp"

#include <array>
#include <cmath>
#include <initializer_list>

#include "kernels/plan/record.hpp"

namespace switchyard::kernels::plan {

namespace {

// Multiply-adds of one product of every visible pair's vectors, in all heads.
double multiply_adds(const AttentionShape& shape, const KeyRanges& ranges) {
  return ranges.num_pairs * static_cast<double>(shape.num_heads * shape.head_dim);
}

WorkDims dims_of(const AttentionShape& shape, const KeyRanges& ranges) {
  const std::int64_t rows = shape.num_sequences * shape.query_length;
  const double mean_keys = rows > 0 ? ranges.num_pairs / static_cast<double>(rows) : 0;
  return {rows,           std::llround(mean_keys), shape.num_heads,
          shape.head_dim, shape.num_kv_heads,      shape.query_length};
}

// Of the kinds' names: what a query sees of the keys decides how many scores of a block are masked.
enum class Sight { before, window, all };
Sight sight_of(const AttentionShape& shape, const KeyRanges& ranges) {
  constexpr double least_all = 0.75, most_window = 0.4;  // before: half of the keys in the mean
  const auto rows = static_cast<double>(shape.num_sequences * shape.query_length);
  const double share = ranges.num_pairs / (rows * static_cast<double>(shape.key_length));
  return share >= least_all ? Sight::all : share < most_window ? Sight::window : Sight::before;
}

double numel(const TensorView& view) {
  return static_cast<double>(view.numel());
}

double bytes_of(std::initializer_list<const TensorView*> views) {
  double bytes = 0;
  for (const TensorView* view : views) bytes += static_cast<double>(view->num_bytes());
  return bytes;
}

}  // namespace

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                       const TensorView& lse) {
  constexpr std::array kinds = {"attention_forward", "attention_forward_window",
                                "attention_forward_all"};
  const double products = shape.num_distances > 0 ? 6.0 : 4.0;
  record(q, products * multiply_adds(shape, ranges), bytes_of({&q, &k, &v, &out, &lse}),
         dims_of(shape, ranges), kinds[static_cast<std::size_t>(sight_of(shape, ranges))]);
}

void attention_delta(const TensorView& out, const TensorView& dout, const TensorView& delta) {
  record(out, 0, bytes_of({&out, &dout, &delta}));
}

void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients) {
  // The gradients of queries and of keys and values by themselves are half of it each: what both
  // compute anew counts once.
  double products = 0;
  double bytes = bytes_of({&q, &k, &v, &lse, &delta, &dout});
  if (gradients.has_dq()) {
    products += 4.0;
    bytes += bytes_of({&gradients.dq});
    if (gradients.has_dbias()) bytes += bytes_of({&gradients.dbias});
  }
  if (shape.num_distances > 0) products += 4.0;
  if (gradients.has_dkv()) {
    products += 4.0;
    bytes += bytes_of({&gradients.dk, &gradients.dv});
  }
  constexpr std::array kinds = {"attention_backward", "attention_backward_window",
                                "attention_backward_all"};
  record(q, products * multiply_adds(shape, ranges), bytes, dims_of(shape, ranges),
         kinds[static_cast<std::size_t>(sight_of(shape, ranges))]);
}

void make_distance_bias(const TensorView& values) {
  record(values, 0, bytes_of({&values}));
}

void attention_merge(const TensorView& other, const TensorView& out, const TensorView& lse) {
  record(out, 3.0 * numel(out), bytes_of({&other, &lse}) + 2 * bytes_of({&out, &lse}));
}

void block_mean(const TensorView& rows, const TensorView& pooled) {
  record(rows, numel(rows), bytes_of({&rows, &pooled}));
}

void block_sums(const TensorView& rows, const TensorView& weights, const TensorView& sums) {
  record(rows, 2.0 * numel(rows) * static_cast<double>(weights.rows()), bytes_of({&rows, &sums}));
}

// A query with the means of all blocks before it: half of them in the mean.
void choose_blocks(const BlockQueries& asking, const TensorView& q, const TensorView& pooled_keys,
                   const TensorView& chosen) {
  const double blocks =
      static_cast<double>(pooled_keys.rows()) / static_cast<double>(asking.num_sequences);
  record(q, blocks * static_cast<double>(q.rows() * pooled_keys.cols()),
         bytes_of({&q, &pooled_keys, &chosen}));
}

void hash_keys(const TensorView& keys, const TensorView& directions, const TensorView& buckets) {
  record(keys, 2.0 * numel(keys) * static_cast<double>(directions.rows()),
         bytes_of({&keys, &directions, &buckets}));
}

void sort_classes(const TensorView& query_rows, const TensorView& key_rows) {
  record(key_rows, 0, 3 * bytes_of({&query_rows}) + 2 * bytes_of({&key_rows}));
}

void attention_sink_forward(const TensorView& out, const TensorView& lse) {
  record(out, numel(out), 2 * bytes_of({&out, &lse}));
}

void attention_sink_backward(const TensorView& lse, const TensorView& delta) {
  record(lse, 2.0 * numel(lse), bytes_of({&lse, &delta}));
}

}  // namespace switchyard::kernels::plan
