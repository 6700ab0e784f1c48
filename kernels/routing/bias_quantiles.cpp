#include "kernels/routing/bias_quantiles.hpp"

#include <bit>
#include <cmath>

#include "kernels/check.hpp"
#include "kernels/cpu/routing/bias_quantiles.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

// The exponent of an fp32 and the first 4 bits behind it: 16 numbers an octave.
constexpr int dropped_bits = 23 - 4;
constexpr float least_magnitude = 0x1p-16f;
constexpr auto first_code =
    static_cast<int>(std::bit_cast<std::uint32_t>(least_magnitude) >> dropped_bits);

double magnitude_at(int step) {
  if (step == 0) return 0;
  const auto code = static_cast<std::uint32_t>(first_code + step - 1);
  return static_cast<double>(std::bit_cast<float>(code << dropped_bits));
}

}  // namespace

int margin_bin(float margin) {
  const float magnitude = std::abs(margin);
  int step = 0;
  if (!(magnitude < 4))
    step = margin_bins_of_sign - 1;
  else if (magnitude >= least_magnitude)
    step =
        static_cast<int>(std::bit_cast<std::uint32_t>(magnitude) >> dropped_bits) - first_code + 1;
  return margin < 0 ? margin_bins_of_sign - 1 - step : margin_bins_of_sign + step;
}

double margin_bin_begin(int bin) {
  return bin < margin_bins_of_sign ? -magnitude_at(margin_bins_of_sign - bin)
                                   : magnitude_at(bin - margin_bins_of_sign);
}

void count_margins(const TensorView& scores, const TensorView& bias, std::int64_t top_k,
                   const TensorView& histogram) {
  if (scores.empty()) return;
  expect(scores.dtype == DType::f32, "scores f32 [T, E]");
  expect_vector(bias, DType::f32, scores.cols(), "bias f32 [E]");
  expect(top_k >= 1 && top_k < scores.cols(), "an expert that is not chosen");
  expect_vector(histogram, DType::i64, scores.cols() * num_margin_bins, "histogram i64 [E, B]");
  dispatch(
      *scores.device, [&] { cpu::count_margins(scores, bias, top_k, histogram); },
      [&] { plan::count_margins(scores); });
}

void move_bias_to_quantiles(const TensorView& histogram, std::int64_t top_k,
                            const TensorView& decision, double rate, const TensorView& bias) {
  expect_vector(histogram, DType::i64, bias.numel() * num_margin_bins, "histogram i64 [E, B]");
  expect_vector(decision, DType::f32, 2, "decision f32 [2]");
  expect_vector(bias, DType::f32, bias.numel(), "bias f32 [E]");
  expect(rate > 0 && rate <= 1, "a rate in (0, 1]");
  dispatch(
      *bias.device, [&] { cpu::move_bias_to_quantiles(histogram, top_k, decision, rate, bias); },
      [&] { plan::move_bias_to_quantiles(histogram, bias); });
}

}  // namespace switchyard::kernels
