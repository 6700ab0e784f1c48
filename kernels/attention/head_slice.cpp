#include "kernels/attention/head_slice.hpp"

#include "tensor/error.hpp"

namespace switchyard::kernels {

HeadSlice::HeadSlice(const AttentionShape& whole, std::int64_t begin, std::int64_t end)
    : begin_(begin), kv_begin_(0), shape_(whole) {
  const std::int64_t group = whole.num_heads / whole.num_kv_heads;
  const bool is_whole = begin == 0 && end == whole.num_heads;
  expect(is_whole || (begin % group == 0 && end % group == 0), "heads of whole groups");
  if (is_whole) return;
  kv_begin_ = begin / group;
  shape_.num_heads = end - begin;
  shape_.num_kv_heads = (end - begin) / group;
  if (!whole.slopes.empty())
    shape_.slopes = whole.slopes.subspan(static_cast<std::size_t>(begin),
                                         static_cast<std::size_t>(end - begin));
  shape_.distance_queries = queries(whole.distance_queries);
  shape_.distance_keys = keys(whole.distance_keys);
  if (!whole.bias.values.empty()) shape_.bias.values = whole.bias.values.slice_rows(begin, end);
}

TensorView HeadSlice::cols(const TensorView& whole, std::int64_t begin, std::int64_t count,
                           std::int64_t width) {
  if (whole.device == nullptr) return whole;
  return whole.slice_cols(begin * width, (begin + count) * width);
}

TensorView HeadSlice::queries(const TensorView& whole) const {
  return cols(whole, begin_, shape_.num_heads, shape_.head_dim);
}

TensorView HeadSlice::keys(const TensorView& whole) const {
  return cols(whole, kv_begin_, shape_.num_kv_heads, shape_.head_dim);
}

TensorView HeadSlice::row_values(const TensorView& whole) const {
  return cols(whole, begin_, shape_.num_heads, 1);
}

AttentionGradients HeadSlice::gradients(const AttentionGradients& whole) const {
  AttentionGradients slice = whole;
  slice.dq = queries(whole.dq);
  slice.dk = keys(whole.dk);
  slice.dv = keys(whole.dv);
  slice.dp = queries(whole.dp);
  slice.dr = keys(whole.dr);
  slice.dbias = cols(whole.dbias, begin_, shape_.num_heads, shape_.bias.num_parameters);
  return slice;
}

}  // namespace switchyard::kernels
