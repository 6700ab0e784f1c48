#include "kernels/cpu/routing/router_noise.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/token_counter.hpp"

namespace switchyard::kernels::cpu {

namespace {

// body(row, element, its random number) for all elements of the tokens from first_token on; draw
// turns four words into four numbers.
template <class Draw, class Body>
void for_each_number(const TensorView& x, std::int64_t first_token, const TokenCounters& counters,
                     Draw draw, Body body) {
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t i = 0; i < x.cols(); i += 4) {
        const auto numbers = draw(counters.words(first_token + row, i / 4));
        for (std::int64_t at = i; at < std::min(i + 4, x.cols()); ++at)
          body(row, at, numbers[static_cast<std::size_t>(at - i)]);
      }
  });
}

// log(1 + exp(x)) without overflow.
float softplus(float x) {
  return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x)));
}

float sigmoid(float x) {
  const float e = std::exp(-std::abs(x));
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

}  // namespace

void add_router_noise(const TensorView& raw, const DropoutSite& site,
                      const TensorView& sequence_ids, const TensorView& logits) {
  const TokenCounters counters(site, sequence_ids, raw.cols());
  const Rows<float> in = rows_of<float>(raw), out = rows_of<float>(logits);
  for_each_number(raw, 0, counters, normals, [&](std::int64_t t, std::int64_t e, float n) {
    out[t][e] += n * softplus(in[t][e]);
  });
}

void router_noise_backward(const TensorView& dlogits, const TensorView& raw,
                           const DropoutSite& site, const TensorView& sequence_ids,
                           const TensorView& draw) {
  const TokenCounters counters(site, sequence_ids, raw.cols());
  const Rows<float> gradient = rows_of<float>(dlogits), in = rows_of<float>(raw);
  const Rows<float> out = rows_of<float>(draw);
  for_each_number(raw, 0, counters, normals, [&](std::int64_t t, std::int64_t e, float n) {
    out[t][e] = gradient[t][e] * n * sigmoid(in[t][e]);
  });
}

void jitter(const TensorView& x, std::int64_t first_token, float epsilon, const DropoutSite& site,
            const TensorView& sequence_ids) {
  const TokenCounters counters(site, sequence_ids, x.cols());
  const Rows<float> rows = rows_of<float>(x);
  const auto uniforms = [](const std::array<std::uint32_t, 4>& words) {
    return std::array{uniform(words[0]), uniform(words[1]), uniform(words[2]), uniform(words[3])};
  };
  for_each_number(x, first_token, counters, uniforms, [&](std::int64_t t, std::int64_t h, float u) {
    rows[t][h] *= 1 - epsilon + 2 * epsilon * u;
  });
}

void give_up_second(const TensorView& weights, const DropoutSite& site,
                    const TensorView& sequence_ids, const TensorView& indices) {
  const TokenCounters counters(site, sequence_ids, 1);
  const Rows<float> weight = rows_of<float>(weights);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  parallel_rows(weights.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      if (!(2 * weight[t][1] > uniform(counters.words(t, 0)[0]))) index[t][1] = -1;
  });
}

}  // namespace switchyard::kernels::cpu
