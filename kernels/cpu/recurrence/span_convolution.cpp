#include "kernels/cpu/recurrence/span_convolution.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/convolution_tokens.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Shares of all taps.
void softmax(const float* logits, std::vector<float>& shares) {
  const auto width = static_cast<std::int64_t>(shares.size());
  const float most = *std::max_element(logits, logits + width);
  float sum = 0;
  for (std::size_t j = 0; j < shares.size(); ++j) sum += shares[j] = std::exp(logits[j] - most);
  for (float& share : shares) share /= sum;
}

// A head of a sequence is one piece: its rows of dx are no other piece's.
template <class Body>
void for_each_head(const ConvolutionShape& shape, std::int64_t heads, const Body& body) {
  for_each_piece(shape.num_sequences * heads,
                 [&](std::int64_t piece, int) { body(piece / heads, piece % heads); });
}

template <class T>
void forward(const ConvolutionShape& shape, const TensorView& x, const TensorView& logits,
             const TensorView& y) {
  const Rows<T> in = rows_of<T>(x), out = rows_of<T>(y);
  const std::int64_t heads = logits.cols() / shape.width, dim = x.cols() / heads;
  for_each_head(shape, heads, [&](std::int64_t s, std::int64_t h) {
    std::vector<float> shares(static_cast<std::size_t>(shape.width));
    std::vector<float> sum(static_cast<std::size_t>(dim));
    for_each_token(shape, s, [&](std::int64_t row, std::int64_t own, std::int64_t reach) {
      softmax(logits.row<float>(row) + h * shape.width, shares);
      std::ranges::fill(sum, 0.0f);
      for (std::int64_t j = 0; j <= reach; ++j) {
        const float share = shares[static_cast<std::size_t>(j)];
        const T* from = in[own - j] + h * dim;
        for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += share * value_of(from[c]);
      }
      for (std::size_t c = 0; c < sum.size(); ++c)
        put(sum[c], out[row][h * dim + static_cast<std::int64_t>(c)]);
    });
  });
}

template <class T>
void backward(const ConvolutionShape& shape, const TensorView& dy, const TensorView& x,
              const TensorView& logits, const TensorView& dx, const TensorView& dlogits) {
  const Rows<T> in = rows_of<T>(x), gradient = rows_of<T>(dy);
  const std::int64_t heads = logits.cols() / shape.width, dim = x.cols() / heads;
  const std::int64_t num_read = num_positions(shape.read);
  for_each_head(shape, heads, [&](std::int64_t s, std::int64_t h) {
    std::vector<float> shares(static_cast<std::size_t>(shape.width));
    std::vector<float> of_shares(shares.size());
    for (std::int64_t row = s * num_read; row < (s + 1) * num_read; ++row)
      std::fill_n(dx.row<float>(row) + h * dim, dim, 0.0f);
    for_each_token(shape, s, [&](std::int64_t row, std::int64_t own, std::int64_t reach) {
      softmax(logits.row<float>(row) + h * shape.width, shares);
      std::ranges::fill(of_shares, 0.0f);
      const T* d = gradient[row] + h * dim;
      float mean = 0;
      for (std::int64_t j = 0; j <= reach; ++j) {
        const auto at = static_cast<std::size_t>(j);
        const T* from = in[own - j] + h * dim;
        float* to = dx.row<float>(own - j) + h * dim;
        for (std::int64_t c = 0; c < dim; ++c) {
          of_shares[at] += value_of(d[c]) * value_of(from[c]);
          to[c] += shares[at] * value_of(d[c]);
        }
        mean += shares[at] * of_shares[at];
      }
      float* to = dlogits.row<float>(row) + h * shape.width;
      for (std::size_t j = 0; j < shares.size(); ++j) to[j] = shares[j] * (of_shares[j] - mean);
    });
  });
}

template <class T>
void multiply_rows(const TensorView& a, const TensorView& b, const TensorView& out) {
  const Rows<T> first = rows_of<T>(a), second = rows_of<T>(b), to = rows_of<T>(out);
  parallel_rows(a.rows(), a.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t c = 0; c < a.cols(); ++c)
        put(value_of(first[row][c]) * value_of(second[row][c]), to[row][c]);
  });
}

}  // namespace

void span_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                              const TensorView& logits, const TensorView& y) {
  if (x.dtype == DType::f32)
    forward<float>(shape, x, logits, y);
  else
    forward<BFloat16>(shape, x, logits, y);
}

void span_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                               const TensorView& x, const TensorView& logits, const TensorView& dx,
                               const TensorView& dlogits) {
  if (x.dtype == DType::f32)
    backward<float>(shape, dy, x, logits, dx, dlogits);
  else
    backward<BFloat16>(shape, dy, x, logits, dx, dlogits);
}

void multiply_elements(const TensorView& a, const TensorView& b, const TensorView& out) {
  if (a.dtype == DType::f32)
    multiply_rows<float>(a, b, out);
  else
    multiply_rows<BFloat16>(a, b, out);
}

}  // namespace switchyard::kernels::cpu
