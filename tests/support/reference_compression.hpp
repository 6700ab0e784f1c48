// What teaches the pooling of a Compressive Transformer, in double precision: the gradient, by the
// rows [q k v] of groups, of the mean over tokens of |attention over groups - attention over the
// rows that they stand for|^2.
#pragma once

#include "tests/support/reference_attention_layer.hpp"

namespace switchyard::reference_model {

// Softmax attention of query row t and a head over rows begin ... end - 1 of `keys`: probabilities,
// and what they give.
struct Attended {
  std::vector<double> probs, out;
};
inline Attended attend_over(const Matrix& qkv, const Matrix& keys, const AttentionDims& dims,
                            std::int64_t t, std::int64_t head, std::int64_t begin,
                            std::int64_t end) {
  Attended result{{}, std::vector<double>(static_cast<std::size_t>(dims.head_dim), 0.0)};
  double sum = 0;
  for (std::int64_t j = begin; j < end; ++j) {
    double dot = 0;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      dot += qkv.at(t, dims.q(head) + d) * keys.at(j, dims.k(head) + d);
    result.probs.push_back(std::exp(dot / std::sqrt(static_cast<double>(dims.head_dim))));
    sum += result.probs.back();
  }
  for (std::int64_t j = begin; j < end; ++j) {
    double& p = result.probs[static_cast<std::size_t>(j - begin)];
    p /= sum;
    for (std::int64_t d = 0; d < dims.head_dim; ++d)
      result.out[static_cast<std::size_t>(d)] += p * keys.at(j, dims.v(head) + d);
  }
  return result;
}

inline Matrix reconstruction_gradient(const Matrix& qkv, const AttentionDims& dims,
                                      std::int64_t segment, std::int64_t memory,
                                      std::int64_t ratio) {
  Matrix d_groups(dims.groups.rows, dims.groups.cols);
  const double scale = 1 / std::sqrt(static_cast<double>(dims.head_dim));
  for (std::int64_t t = 0; t < qkv.rows; ++t)
    for (std::int64_t head = 0; head < dims.num_heads; ++head) {
      const std::int64_t i = t % dims.length, sequence = t / dims.length;
      const std::int64_t end = std::max<std::int64_t>(i / segment * segment - memory, 0);
      const std::int64_t begin = std::max<std::int64_t>(end - segment, 0);
      const std::int64_t group = sequence * (dims.length / ratio) + begin / ratio;
      const std::int64_t end_group = group + (end - begin) / ratio;
      const Attended old = attend_over(qkv, qkv, dims, t, head, t - i + begin, t - i + end);
      const Attended pooled = attend_over(qkv, dims.groups, dims, t, head, group, end_group);
      std::vector<double> dout;
      double mean = 0;
      for (std::size_t d = 0; d < old.out.size(); ++d) {
        dout.push_back(2 * (pooled.out[d] - old.out[d]) / static_cast<double>(qkv.rows));
        mean += dout[d] * pooled.out[d];
      }
      for (std::int64_t g = group; g < end_group; ++g) {
        const double p = pooled.probs[static_cast<std::size_t>(g - group)];
        double dprob = 0;
        for (std::int64_t d = 0; d < dims.head_dim; ++d) {
          dprob += dout[static_cast<std::size_t>(d)] * dims.groups.at(g, dims.v(head) + d);
          d_groups.at(g, dims.v(head) + d) += p * dout[static_cast<std::size_t>(d)];
        }
        for (std::int64_t d = 0; d < dims.head_dim; ++d)
          d_groups.at(g, dims.k(head) + d) +=
              scale * p * (dprob - mean) * qkv.at(t, dims.q(head) + d);
      }
    }
  return d_groups;
}

}  // namespace switchyard::reference_model
