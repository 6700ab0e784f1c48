#include "kernels/rows/elementwise.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/dropout.hpp"
#include "kernels/cpu/rows/elementwise.hpp"
#include "kernels/cuda/rows/elementwise.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void fill_zero(const TensorView& x) {
  if (x.empty()) return;
  dispatch(
      *x.device, [&] { cpu::fill_zero(x); }, [&] { plan::fill_zero(x); },
      [&] { cuda::fill_zero(x); });
}

void iota(const TensorView& x) {
  if (x.empty()) return;
  expect_vector(x, DType::i32, x.numel(), "numbers i32, contiguous");
  dispatch(
      *x.device, [&] { cpu::iota(x); }, [&] { plan::iota(x); }, [&] { cuda::iota(x); });
}

void copy(const TensorView& src, const TensorView& dst) {
  if (src.empty()) return;
  expect(has_size(dst, src.rows(), src.cols()), "a copy between equal shapes");
  expect(src.dtype == dst.dtype || (is_float(src.dtype) && is_float(dst.dtype)),
         "a copy between equal types, or between f32 and bf16");
  dispatch(
      *src.device, [&] { cpu::copy(src, dst); }, [&] { plan::copy(src, dst); },
      [&] { cuda::copy(src, dst); });
}

void add(const TensorView& a, const TensorView& b, const TensorView& out) {
  if (a.empty()) return;
  expect(is_float(a.dtype), "terms of type f32 or bf16");
  expect_matrix(b, a.dtype, a.rows(), a.cols(), "b like a");
  expect_matrix(out, a.dtype, a.rows(), a.cols(), "out like a");
  dispatch(
      *a.device, [&] { cpu::add(a, b, out); }, [&] { plan::add(a); },
      [&] { cuda::add(a, b, out); });
}

void scale(const TensorView& x, float factor) {
  if (x.empty()) return;
  expect(x.dtype == DType::f32, "x of type f32");
  dispatch(
      *x.device, [&] { cpu::scale(x, factor); }, [&] { plan::scale(x); },
      [&] { cuda::scale(x, factor); });
}

void dropout(const TensorView& x, float rate, const DropoutSite& site,
             const TensorView& sequence_ids) {
  expect(0 <= rate && rate < 1, "a dropout rate in [0, 1)");
  if (x.empty() || rate == 0) return;
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(site.sequence_length > 0 && site.copies > 0, "at least one position and one copy");
  const std::int64_t rows_per_sequence = site.sequence_length * site.copies;
  expect(x.rows() % rows_per_sequence == 0, "rows of whole sequences");
  expect_vector(sequence_ids, DType::i64, x.rows() / rows_per_sequence,
                "sequence_ids i64 [sequences]");
  expect_vector(site.positions, DType::i32, x.rows() / site.copies, "positions i32 [tokens]");
  dispatch(
      *x.device, [&] { cpu::dropout(x, rate, site, sequence_ids); }, [&] { plan::dropout(x); },
      [&] { cuda::dropout(x, rate, site, sequence_ids); });
}

}  // namespace switchyard::kernels
