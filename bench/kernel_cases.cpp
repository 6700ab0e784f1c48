#include "bench/kernel_cases.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "bench/kernel_operands.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/products/linear.hpp"
#include "kernels/routing/balance.hpp"
#include "kernels/routing/permute.hpp"
#include "kernels/routing/score.hpp"
#include "kernels/routing/select.hpp"
#include "kernels/routing/weigh.hpp"
#include "kernels/rows/cross_entropy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/embedding.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "kernels/rows/rope.hpp"
#include "kernels/rows/swiglu.hpp"
#include "kernels/sums/adamw.hpp"
#include "kernels/sums/sums.hpp"

namespace switchyard::bench {

namespace {

constexpr std::int64_t hidden = 512;
constexpr std::int64_t head_dim_of_rows = 64;
constexpr std::int64_t num_experts = 16;
constexpr std::int64_t top_k = 2;
constexpr std::int64_t vocabulary = 4096;

// i32 [rows, top_k]: of random scores, which are then given, too.
TensorView choices(Operands& o, std::int64_t rows, TensorView* scores = nullptr) {
  const TensorView drawn = o.make(DType::f32, {rows, num_experts});
  const TensorView indices = o.make(DType::i32, {rows, top_k});
  kernels::select_top_k(drawn, indices);
  if (scores != nullptr) *scores = drawn;
  return indices;
}

KernelCall rms_norm_forward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView x = o->fresh(o->make(dtype, {rows, hidden})), y = o->make(dtype, {rows, hidden});
  const TensorView weight = o->make(DType::f32, {hidden}), rstd = o->make(DType::f32, {rows});
  return owning(o, [=] { kernels::rms_norm_forward(x, weight, 1e-6f, y, rstd); });
}

KernelCall add_rms_norm_forward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView x = o->make(dtype, {rows, hidden}),
                   delta = o->fresh(o->make(dtype, {rows, hidden}));
  const TensorView sum = o->make(dtype, {rows, hidden}), y = o->make(dtype, {rows, hidden});
  const TensorView weight = o->make(DType::f32, {hidden}), rstd = o->make(DType::f32, {rows});
  return owning(o, [=] { kernels::add_rms_norm_forward(x, delta, weight, 1e-6f, sum, y, rstd); });
}

KernelCall rms_norm_backward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView x = o->make(dtype, {rows, hidden}),
                   dy = o->fresh(o->make(dtype, {rows, hidden}));
  const TensorView dx = o->make(dtype, {rows, hidden});
  const TensorView weight = o->make(DType::f32, {hidden}), dweight = o->make(DType::f32, {hidden});
  const TensorView rstd = o->make(DType::f32, {rows});
  const TensorView workspace =
      o->make(DType::u8, {kernels::rms_norm_workspace_bytes(device, hidden)});
  return owning(
      o, [=] { kernels::rms_norm_backward(dy, x, weight, rstd, dy, dx, dweight, workspace); });
}

KernelCall rope(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView x = o->fresh(o->make(dtype, {rows, hidden}));
  const TensorView positions = o->numbers(rows, 4096);
  const auto table =
      std::make_shared<kernels::RopeTable>(device, 4096, head_dim_of_rows, kernels::RopeSpec{});
  return owning(o, [=] {
    kernels::rope(x, *table, positions, head_dim_of_rows, kernels::Rotation::forward);
  });
}

KernelCall swiglu_forward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView gate_up = o->fresh(o->make(dtype, {rows, 2 * hidden})),
                   act = o->make(dtype, {rows, hidden});
  return owning(o, [=] { kernels::swiglu_forward(gate_up, act); });
}

KernelCall swiglu_backward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView gate_up = o->make(dtype, {rows, 2 * hidden}),
                   act = o->make(dtype, {rows, hidden});
  const TensorView d_act = o->fresh(o->make(dtype, {rows, hidden}));
  const TensorView d_gate_up = o->make(dtype, {rows, 2 * hidden});
  return owning(o, [=] { kernels::swiglu_backward(d_act, gate_up, d_gate_up, act); });
}

KernelCall embedding_forward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView table = o->make(DType::f32, {vocabulary, hidden});
  const TensorView out = o->make(dtype, {rows, hidden}), tokens = o->numbers(rows, 251);
  return owning(o, [=] { kernels::embedding_forward(tokens, table, out); });
}

KernelCall embedding_backward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView table = o->make(DType::f32, {vocabulary, hidden});
  const TensorView dout = o->fresh(o->make(dtype, {rows, hidden})), tokens = o->numbers(rows, 251);
  return owning(o, [=] { kernels::embedding_backward(tokens, dout, table); });
}

KernelCall cross_entropy(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView logits = o->fresh(o->make(DType::f32, {rows, hidden}));
  const TensorView dlogits = o->make(dtype, {rows, hidden}), losses = o->make(DType::f32, {rows});
  const TensorView targets = o->numbers(rows, 251);
  return owning(
      o, [=] { kernels::softmax_cross_entropy(logits, targets, hidden, 1.0f, losses, dlogits); });
}

KernelCall score_softmax(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  const TensorView logits = o->fresh(o->make(DType::f32, {rows, num_experts}));
  const TensorView scores = o->make(DType::f32, {rows, num_experts}),
                   lse = o->make(DType::f32, {rows});
  return owning(o, [=] { kernels::score_softmax(logits, scores, lse); });
}

KernelCall score_softmax_backward(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  const TensorView indices = choices(*o, rows);
  const TensorView dchosen = o->make(DType::f32, {rows, top_k}), lse = o->make(DType::f32, {rows});
  const TensorView slopes = o->make(DType::f32, {1, num_experts});
  const TensorView scores = o->make(DType::f32, {rows, num_experts});
  const TensorView dlogits = o->make(DType::f32, {rows, num_experts});
  return owning(o, [=] {
    kernels::score_softmax_backward(dchosen, indices, slopes, 0.1f, scores, lse, dlogits);
  });
}

KernelCall select_top_k(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  TensorView scores;
  const TensorView indices = choices(*o, rows, &scores);
  return owning(o, [=] { kernels::select_top_k(scores, indices); });
}

KernelCall weigh(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  TensorView scores;
  const TensorView indices = choices(*o, rows, &scores);
  const TensorView weights = o->make(DType::f32, {rows, top_k});
  return owning(o, [=] { kernels::weigh(scores, indices, {.renormalize = true}, weights); });
}

KernelCall weigh_backward(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  TensorView scores;
  const TensorView indices = choices(*o, rows, &scores);
  const TensorView dweights = o->make(DType::f32, {rows, top_k});
  const TensorView dchosen = o->make(DType::f32, {rows, top_k});
  return owning(o, [=] {
    kernels::weigh_backward(dweights, scores, indices, {.renormalize = true}, dchosen);
  });
}

KernelCall balance_statistics(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  TensorView scores;
  const TensorView indices = choices(*o, rows, &scores);
  const TensorView counts = o->make(DType::i32, {1, num_experts});
  const TensorView sums = o->make(DType::f32, {1, num_experts});
  return owning(o, [=] { kernels::balance_statistics(scores, indices, rows, counts, sums); });
}

// The rows of tokens for their experts, in the order that the sort gives.
struct SortedRows {
  TensorView indices, counts, row_of_slot, token_of_row;
};
SortedRows sorted_rows(Operands& o, std::int64_t rows) {
  const SortedRows sorted{choices(o, rows), o.make(DType::i32, {num_experts}),
                          o.make(DType::i32, {rows, top_k}), o.make(DType::i32, {rows * top_k})};
  kernels::sort_by_expert(sorted.indices, {}, sorted.counts, sorted.row_of_slot,
                          sorted.token_of_row);
  return sorted;
}

KernelCall sort_by_expert(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  const SortedRows s = sorted_rows(*o, rows);
  return owning(
      o, [=] { kernels::sort_by_expert(s.indices, {}, s.counts, s.row_of_slot, s.token_of_row); });
}

KernelCall gather_rows(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const SortedRows s = sorted_rows(*o, rows);
  const TensorView src = o->fresh(o->make(dtype, {rows, hidden})),
                   dst = o->make(dtype, {rows * top_k, hidden});
  return owning(o, [=] { kernels::gather_rows(src, s.token_of_row, dst); });
}

KernelCall scatter_rows(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const SortedRows s = sorted_rows(*o, rows);
  const TensorView src = o->fresh(o->make(dtype, {rows * top_k, hidden}));
  const TensorView dst = o->make(dtype, {rows * top_k, hidden});
  return owning(o, [=] { kernels::scatter_rows(src, s.row_of_slot.flat(), dst); });
}

KernelCall combine_rows(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const SortedRows s = sorted_rows(*o, rows);
  const TensorView from = o->fresh(o->make(dtype, {rows * top_k, hidden})),
                   out = o->make(dtype, {rows, hidden});
  const TensorView weights = o->make(DType::f32, {rows, top_k});
  return owning(o, [=] { kernels::combine_rows(from, s.row_of_slot, weights, out); });
}

KernelCall combine_rows_backward(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const SortedRows s = sorted_rows(*o, rows);
  const TensorView dout = o->fresh(o->make(dtype, {rows, hidden})),
                   from = o->make(dtype, {rows * top_k, hidden});
  const TensorView drows = o->make(dtype, {rows * top_k, hidden});
  const TensorView weights = o->make(DType::f32, {rows, top_k});
  const TensorView dweights = o->make(DType::f32, {rows, top_k});
  return owning(o, [=] {
    kernels::combine_rows_backward(dout, from, s.row_of_slot, weights, drows, dweights);
  });
}

KernelCall sum_rows(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const SortedRows s = sorted_rows(*o, rows);
  const TensorView from = o->fresh(o->make(dtype, {rows * top_k, hidden})),
                   out = o->make(dtype, {rows, hidden});
  return owning(o, [=] { kernels::sum_rows(from, s.row_of_slot, out); });
}

KernelCall copy(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView src = o->fresh(o->make(dtype, {rows, hidden})),
                   dst = o->make(dtype, {rows, hidden});
  return owning(o, [=] { kernels::copy(src, dst); });
}

KernelCall add(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView a = o->fresh(o->make(dtype, {rows, hidden})), b = o->make(dtype, {rows, hidden});
  return owning(o, [=] { kernels::add(a, b, a); });
}

KernelCall fill_zero(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView x = o->make(dtype, {rows, hidden});
  return owning(o, [=] { kernels::fill_zero(x); });
}

KernelCall adamw(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  const auto make = [&] { return o->make(DType::f32, {rows * hidden}); };
  const auto tensor = std::make_shared<std::array<kernels::AdamWTensor, 1>>();
  (*tensor)[0] = {make(), make(), make(), make(), 0.1f};
  kernels::fill_zero((*tensor)[0].moment2);  // squares, which are not negative
  const TensorView decision = o->make(DType::f32, {2});
  return owning(o, [=] { kernels::adamw(*tensor, {.learning_rate = 1e-6f}, decision); });
}

KernelCall add_sum_of_squares(Device& device, std::int64_t rows, DType) {
  const Held o = operands_on(device);
  const auto tensors = std::make_shared<std::array<TensorView, 1>>();
  (*tensors)[0] = o->make(DType::f32, {rows * hidden});
  const TensorView into = o->make(DType::f64, {1});
  return owning(o, [=] { kernels::add_sum_of_squares(*tensors, into); });
}

KernelCall pack_weight(Device& device, std::int64_t rows, DType compute) {
  const Held o = operands_on(device);
  const TensorView weight = o->make(DType::f32, {std::max<std::int64_t>(rows, 8), hidden});
  const auto packed =
      std::make_shared<kernels::PackedWeight>(device, weight.rows(), hidden, compute);
  return owning(o, [=] { packed->pack(weight); });
}

KernelCall attention_delta(Device& device, std::int64_t rows, DType dtype) {
  const Held o = operands_on(device);
  const TensorView out = o->make(dtype, {rows, hidden}),
                   dout = o->fresh(o->make(dtype, {rows, hidden}));
  const TensorView delta = o->make(DType::f32, {rows, hidden / head_dim_of_rows});
  return owning(o, [=] { kernels::attention_delta(out, dout, head_dim_of_rows, delta); });
}

}  // namespace

const std::vector<LoopCase>& loop_cases() {
  static const std::vector<LoopCase> cases = {
      {"rms_norm_forward", true, rms_norm_forward},
      {"add_rms_norm_forward", true, add_rms_norm_forward},
      {"rms_norm_backward", true, rms_norm_backward},
      {"rope", true, rope},
      {"swiglu_forward", true, swiglu_forward},
      {"swiglu_backward", true, swiglu_backward},
      {"embedding_forward", true, embedding_forward},
      {"embedding_backward", true, embedding_backward},
      {"softmax_cross_entropy", false, cross_entropy},
      {"score_softmax", false, score_softmax},
      {"score_softmax_backward", false, score_softmax_backward},
      {"select_top_k", false, select_top_k},
      {"weigh", false, weigh},
      {"weigh_backward", false, weigh_backward},
      {"balance_statistics", false, balance_statistics},
      {"sort_by_expert", false, sort_by_expert},
      {"gather_rows", true, gather_rows},
      {"scatter_rows", true, scatter_rows},
      {"combine_rows", true, combine_rows},
      {"combine_rows_backward", true, combine_rows_backward},
      {"sum_rows", true, sum_rows},
      {"copy", true, copy},
      {"add", true, add},
      {"fill_zero", false, fill_zero},
      {"adamw", false, adamw},
      {"add_sum_of_squares", false, add_sum_of_squares},
      {"pack_weight", true, pack_weight},
      {"attention_delta", true, attention_delta}};
  return cases;
}

}  // namespace switchyard::bench
