#include "kernels/plan/attention.hpp"

#include <algorithm>
#include <initializer_list>

#include "kernels/plan/record.hpp"

namespace switchyard::kernels::plan {

namespace {

// Pairs of a query and a key that it sees, over all sequences and heads.
double visible_pairs(const AttentionShape& s) {
  // The first `partial` queries see query_offset + 1, + 2, ... keys; the others see all of them.
  const std::int64_t partial =
      std::clamp<std::int64_t>(s.key_length - s.query_offset, 0, s.query_length);
  const double of_partial =
      static_cast<double>(partial) *
      (static_cast<double>(s.query_offset) + (static_cast<double>(partial) + 1.0) / 2.0);
  const double of_full =
      static_cast<double>(s.query_length - partial) * static_cast<double>(s.key_length);
  return (of_partial + of_full) * static_cast<double>(s.num_sequences * s.num_heads);
}

double bytes_of(std::initializer_list<const TensorView*> views) {
  double bytes = 0;
  for (const TensorView* view : views) bytes += static_cast<double>(view->num_bytes());
  return bytes;
}

}  // namespace

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const TensorView& out, const TensorView& lse) {
  record(q, 4.0 * static_cast<double>(shape.head_dim) * visible_pairs(shape),
         bytes_of({&q, &k, &v, &out, &lse}));
}

void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const TensorView& out, const TensorView& lse,
                        const TensorView& dout, const AttentionGradients& gradients) {
  record(q, 8.0 * static_cast<double>(shape.head_dim) * visible_pairs(shape),
         bytes_of({&q, &k, &v, &out, &lse, &dout, &gradients.dq, &gradients.dk, &gradients.dv}));
}

}  // namespace switchyard::kernels::plan
