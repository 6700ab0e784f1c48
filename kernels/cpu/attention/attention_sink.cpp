#include "kernels/cpu/attention/attention_sink.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/sums/fixed_point.hpp"

namespace switchyard::kernels::cpu {

namespace {

// log sum exp of a head's sinks.
double sink_lse(const TensorView& sinks, std::int64_t head) {
  const float* logits = sinks.row<float>(head);
  const double max = static_cast<double>(*std::max_element(logits, logits + sinks.cols()));
  double sum = 0;
  for (std::int64_t i = 0; i < sinks.cols(); ++i)
    sum += std::exp(static_cast<double>(logits[i]) - max);
  return max + std::log(sum);
}

float scaled(float value, float factor) {
  return value * factor;
}
BFloat16 scaled(BFloat16 value, float factor) {
  return to_bf16(to_float(value) * factor);
}

// Of one head of a row: the output's factor sigmoid(lse - z), and lse with the sinks in it.
struct WithSinks {
  float factor;
  float lse;
};
WithSinks with_sinks(float lse, double z) {
  if (lse == -std::numeric_limits<float>::infinity()) return {0.0f, static_cast<float>(z)};
  const double l = static_cast<double>(lse);
  const double larger = std::max(l, z);
  const double both = larger + std::log1p(std::exp(std::min(l, z) - larger));
  return {static_cast<float>(std::exp(l - both)), static_cast<float>(both)};
}

template <class T>
void add_sinks(const TensorView& sinks, std::int64_t head_dim, const TensorView& out,
               const TensorView& lse) {
  const Rows<T> outs = rows_of<T>(out);
  const Rows<float> lses = rows_of<float>(lse);
  parallel_rows(out.rows(), out.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t head = 0; head < sinks.rows(); ++head) {
      const double z = sink_lse(sinks, head);
      for (std::int64_t row = begin; row < end; ++row) {
        const WithSinks result = with_sinks(lses[row][head], z);
        lses[row][head] = result.lse;
        T* values = outs[row] + head * head_dim;
        for (std::int64_t i = 0; i < head_dim; ++i) values[i] = scaled(values[i], result.factor);
      }
    }
  });
}

}  // namespace

void attention_sink_forward(const TensorView& sinks, std::int64_t head_dim, const TensorView& out,
                            const TensorView& lse) {
  if (out.dtype == DType::f32) return add_sinks<float>(sinks, head_dim, out, lse);
  add_sinks<BFloat16>(sinks, head_dim, out, lse);
}

// Heads in parallel, rows in order: the sum over rows has one order. Sums of so many terms of
// either sign are taken in double.
void attention_sink_backward(const TensorView& sinks, const TensorView& lse,
                             const TensorView& delta, const GradientSum& dsinks) {
  const Rows<float> lses = rows_of<float>(lse), deltas = rows_of<float>(delta);
  const bool is_exact = dsinks.is_exact();
  const FixedScale rule(dsinks.exact, std::max<std::int64_t>(dsinks.exact.unit_rows, 1));
  parallel_blocks(sinks.rows(), 1, [&](std::int64_t head, std::int64_t) {
    for (std::int64_t i = 0; i < sinks.cols(); ++i) {
      const float sink = sinks.row<float>(head)[i];
      double sum = 0;
      bool all_fit = true;
      for (std::int64_t row = 0; row < lse.rows(); ++row) {
        const auto term = static_cast<double>(std::exp(sink - lses[row][head]) * deltas[row][head]);
        if (is_exact)
          all_fit &= add_fixed(-term, rule, dsinks.view.row<std::int64_t>(head)[i]);
        else
          sum += term;
      }
      if (!is_exact) dsinks.view.row<float>(head)[i] -= static_cast<float>(sum);
      if (!all_fit) tell_overflow(dsinks.exact);
    }
  });
}

}  // namespace switchyard::kernels::cpu
