// Some of the heads of an attention, as an attention of their own: columns of the whole's tensors.
// For patterns by which not all heads see alike (HeadShare).
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels {

class HeadSlice {
 public:
  // Heads begin ... end - 1: whole groups of heads that share a kv head. Borrows what the shape
  // does.
  HeadSlice(const AttentionShape& whole, std::int64_t begin, std::int64_t end);

  const AttentionShape& shape() const { return shape_; }
  // Of views that may be none. q, out, dout, dq: [rows, heads * head_dim].
  TensorView queries(const TensorView& whole) const;
  // k, v, dk, dv: [rows, kv heads * head_dim].
  TensorView keys(const TensorView& whole) const;
  // lse, delta: [rows, heads].
  TensorView row_values(const TensorView& whole) const;
  AttentionGradients gradients(const AttentionGradients& whole) const;

 private:
  // `width` columns a head, or a kv head, from head `begin` on.
  static TensorView cols(const TensorView& whole, std::int64_t begin, std::int64_t count,
                         std::int64_t width);

  std::int64_t begin_, kv_begin_;
  AttentionShape shape_;
};

}  // namespace switchyard::kernels
