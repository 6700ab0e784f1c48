#include "kernels/routing/routing_figures.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/routing_figures.hpp"
#include "kernels/cuda/routing/routing_figures.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void add_entropy(const TensorView& shares, const TensorView& into) {
  if (shares.empty()) return;
  expect_matrix(shares, DType::f32, shares.rows(), shares.cols(), "shares f32 [T, E]");
  expect_vector(into, DType::i64, 1, "into i64 [1]");
  dispatch(
      *into.device, [&] { cpu::add_entropy(shares, into); }, [&] { plan::add_entropy(shares); },
      [&] { cuda::add_entropy(shares, into); });
}

void add_marked(const TensorView& counts, const TensorView& marks, const TensorView& into) {
  if (counts.empty()) return;
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [n]");
  expect_vector(marks, DType::i32, counts.numel(), "marks i32 [n]");
  expect_vector(into, DType::i64, 1, "into i64 [1]");
  dispatch(
      *into.device, [&] { cpu::add_marked(counts, marks, into); },
      [&] { plan::add_marked(counts); }, [&] { cuda::add_marked(counts, marks, into); });
}

}  // namespace switchyard::kernels
