#include "kernels/routing/router_noise.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/router_noise.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_site(const TensorView& rows, const DropoutSite& site, const TensorView& sequence_ids) {
  expect(site.copies == 1 && site.sequence_length > 0, "a site with one copy of each token");
  expect_vector(site.positions, DType::i32, rows.rows(), "positions i32 [T]");
  expect_vector(sequence_ids, DType::i64, rows.rows() / site.sequence_length,
                "sequence ids i64 [T / sequence_length]");
}

}  // namespace

void add_router_noise(const TensorView& raw, const DropoutSite& site,
                      const TensorView& sequence_ids, const TensorView& logits) {
  if (raw.empty()) return;
  check_site(raw, site, sequence_ids);
  expect(raw.dtype == DType::f32, "raw f32 [T, E]");
  expect_matrix(logits, DType::f32, raw.rows(), raw.cols(), "logits f32 [T, E]");
  dispatch(
      *raw.device, [&] { cpu::add_router_noise(raw, site, sequence_ids, logits); },
      [&] { plan::add_router_noise(raw); });
}

void router_noise_backward(const TensorView& dlogits, const TensorView& raw,
                           const DropoutSite& site, const TensorView& sequence_ids,
                           const TensorView& draw) {
  if (raw.empty()) return;
  check_site(raw, site, sequence_ids);
  expect(raw.dtype == DType::f32, "raw f32 [T, E]");
  expect_matrix(dlogits, DType::f32, raw.rows(), raw.cols(), "dlogits f32 [T, E]");
  expect_matrix(draw, DType::f32, raw.rows(), raw.cols(), "draw f32 [T, E]");
  dispatch(
      *raw.device, [&] { cpu::router_noise_backward(dlogits, raw, site, sequence_ids, draw); },
      [&] { plan::router_noise_backward(raw); });
}

void jitter(const TensorView& x, std::int64_t first_token, float epsilon, const DropoutSite& site,
            const TensorView& sequence_ids) {
  if (x.empty()) return;
  expect(x.dtype == DType::f32, "x f32 [T, H]");
  expect(site.copies == 1 && first_token >= 0 && first_token + x.rows() <= site.positions.numel(),
         "tokens of the site");
  expect(0 <= epsilon && epsilon < 1, "a jitter in [0, 1)");
  dispatch(
      *x.device, [&] { cpu::jitter(x, first_token, epsilon, site, sequence_ids); },
      [&] { plan::jitter(x); });
}

void give_up_second(const TensorView& weights, const DropoutSite& site,
                    const TensorView& sequence_ids, const TensorView& indices) {
  if (weights.empty()) return;
  check_site(weights, site, sequence_ids);
  expect_matrix(weights, DType::f32, weights.rows(), 2, "weights f32 [T, 2]");
  expect_matrix(indices, DType::i32, weights.rows(), 2, "indices i32 [T, 2]");
  dispatch(
      *weights.device, [&] { cpu::give_up_second(weights, site, sequence_ids, indices); },
      [&] { plan::give_up_second(indices); });
}

}  // namespace switchyard::kernels
