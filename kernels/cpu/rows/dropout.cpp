#include "kernels/cpu/rows/dropout.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/token_counter.hpp"

namespace switchyard::kernels::cpu {

namespace {

float as_float(float value) {
  return value;
}
float as_float(BFloat16 value) {
  return to_float(value);
}
void assign(float& to, float value) {
  to = value;
}
void assign(BFloat16& to, float value) {
  to = to_bf16(value);
}

template <class T>
void drop(const TensorView& x, float rate, const DropoutSite& site,
          const TensorView& sequence_ids) {
  const Rows<T> rows = rows_of<T>(x);
  const TokenCounters counters(site, sequence_ids, x.cols());
  const float kept_scale = 1.0f / (1.0f - rate);
  const std::int64_t cols = x.cols();
  parallel_rows(x.rows(), cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t h = 0; h < cols; h += 4) {
        const auto words = counters.words(r, h / 4);
        for (std::int64_t i = h; i < std::min(h + 4, cols); ++i) {
          const bool kept = uniform(words[static_cast<std::size_t>(i - h)]) >= rate;
          T& element = rows[r][i];
          assign(element, kept ? as_float(element) * kept_scale : 0.0f);
        }
      }
    }
  });
}

}  // namespace

void dropout(const TensorView& x, float rate, const DropoutSite& site,
             const TensorView& sequence_ids) {
  if (x.dtype == DType::f32) return drop<float>(x, rate, site, sequence_ids);
  drop<BFloat16>(x, rate, site, sequence_ids);
}

}  // namespace switchyard::kernels::cpu
