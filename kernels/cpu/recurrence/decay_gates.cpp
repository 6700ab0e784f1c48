#include "kernels/cpu/recurrence/decay_gates.hpp"

#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/element.hpp"

namespace switchyard::kernels::cpu {

namespace {

// A few numbers a token: plain loops will do.
float softplus(float x) {
  return x > 20 ? x : std::log1p(std::exp(x));
}
float sigmoid(float x) {
  return 1 / (1 + std::exp(-x));
}

template <class Body>
void with_type(const TensorView& view, Body&& body) {
  if (view.dtype == DType::f32)
    body(rows_of<float>(view));
  else
    body(rows_of<BFloat16>(view));
}

}  // namespace

void decay_gates_forward(const TensorView& logits, const TensorView& rate, const TensorView& bias,
                         const TensorView& steps, const TensorView& gates) {
  with_type(logits, [&](auto in) {
    parallel_rows(logits.rows(), 16 * logits.cols(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t)
        for (std::int64_t h = 0; h < logits.cols(); ++h) {
          const float step = softplus(value_of(in[t][h]) + bias.as<float>()[h]);
          if (!steps.empty()) rows_of<float>(steps)[t][h] = step;
          rows_of<float>(gates)[t][h] = -std::exp(rate.as<float>()[h]) * step;
        }
    });
  });
}

void decay_gates_backward(const TensorView& dgates, const TensorView& dsteps,
                          const TensorView& logits, const TensorView& rate, const TensorView& bias,
                          const TensorView& dlogits, const TensorView& drate,
                          const TensorView& dbias) {
  with_type(logits, [&](auto in) {
    const decltype(in) out = rows_of<std::remove_reference_t<decltype(in[0][0])>>(dlogits);
    for_each_piece(logits.cols(), [&](std::int64_t h, int) {
      const float scale = std::exp(rate.as<float>()[h]);
      double sum_rate = 0, sum_bias = 0;
      for (std::int64_t t = 0; t < logits.rows(); ++t) {
        const float x = value_of(in[t][h]) + bias.as<float>()[h];
        const float dgate = rows_of<float>(dgates)[t][h];
        float dstep = -scale * dgate;
        if (!dsteps.empty()) dstep += rows_of<float>(dsteps)[t][h];
        const float dx = dstep * sigmoid(x);
        put(dx, out[t][h]);
        sum_rate += static_cast<double>(-scale * softplus(x) * dgate);
        sum_bias += static_cast<double>(dx);
      }
      drate.as<float>()[h] += static_cast<float>(sum_rate);
      dbias.as<float>()[h] += static_cast<float>(sum_bias);
    });
  });
}

void beta_gates_forward(const TensorView& logits, float most, const TensorView& betas) {
  with_type(logits, [&](auto in) {
    parallel_rows(logits.rows(), 16 * logits.cols(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t)
        for (std::int64_t h = 0; h < logits.cols(); ++h)
          rows_of<float>(betas)[t][h] = most * sigmoid(value_of(in[t][h]));
    });
  });
}

void beta_gates_backward(const TensorView& dbetas, const TensorView& betas, float most,
                         const TensorView& dlogits) {
  with_type(dlogits, [&](auto out) {
    parallel_rows(betas.rows(), 16 * betas.cols(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t)
        for (std::int64_t h = 0; h < betas.cols(); ++h) {
          const float beta = rows_of<float>(betas)[t][h];
          put(rows_of<float>(dbetas)[t][h] * beta * (1 - beta / most), out[t][h]);
        }
    });
  });
}

}  // namespace switchyard::kernels::cpu
