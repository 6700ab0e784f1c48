// What of a layer's buffers the rows of a route use.
#pragma once

#include "experts/route.hpp"

namespace switchyard {

// Views of the buffers that this micro-batch uses: by slot [T k, ...], sorted rows of the slots
// that are sent, rows on the expert side [R, ...], and by token [T, ...].
inline TensorView used_slots(const Tensor& buffer, const Route& route) {
  return buffer->slice_rows(0, route.num_tokens * route.row_of_slot->cols());
}

inline TensorView sent_rows(const Tensor& buffer, const Route& route) {
  return buffer->slice_rows(0, route.num_sent);
}

inline TensorView used_rows(const Tensor& buffer, const Route& route) {
  return buffer.empty() ? TensorView{} : buffer->slice_rows(0, route.rows_at_once());
}

inline TensorView used_tokens(const Tensor& buffer, const Route& route) {
  return buffer->slice_rows(0, route.num_tokens);
}

}  // namespace switchyard
