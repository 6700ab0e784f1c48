#include "kernels/cpu/embedding.hpp"

#include <cstring>

#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

void check_tokens(const TensorView& tokens, std::int64_t vocab_size) {
  bool legal = true;
  for (std::int32_t token : tokens.span<std::int32_t>()) legal &= 0 <= token && token < vocab_size;
  expect(legal, "tokens within the table");
}

void copy_row(const float* from, float* to, std::int64_t n) {
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}
void copy_row(const float* from, BFloat16* to, std::int64_t n) {
  convert_span(from, to, n);
}

template <class T>
void look_up(const TensorView& tokens, const TensorView& table, const TensorView& out) {
  const std::int32_t* token = tokens.as<std::int32_t>();
  const Rows<float> from = rows_of<float>(table);
  const Rows<T> to = rows_of<T>(out);
  parallel_rows(out.rows(), out.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) copy_row(from[token[t]], to[t], out.cols());
  });
}

// Threads share the columns, so each row of the table receives its tokens in order.
template <class T>
void accumulate(const TensorView& tokens, const TensorView& dout, const TensorView& dtable) {
  constexpr std::int64_t line = 64;  // elements: no two threads write one cache line
  const std::int64_t share = (dout.cols() + num_threads() - 1) / num_threads();
  const std::int64_t width = (share + line - 1) / line * line;
  const std::int32_t* token = tokens.as<std::int32_t>();
  const Rows<T> from = rows_of<T>(dout);
  const Rows<float> to = rows_of<float>(dtable);
  parallel_blocks(dout.cols(), width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < dout.rows(); ++t)
      accumulate_span(to[token[t]] + begin, from[t] + begin, end - begin);
  });
}

}  // namespace

void embedding_forward(const TensorView& tokens, const TensorView& table, const TensorView& out) {
  check_tokens(tokens, table.rows());
  if (out.dtype == DType::f32) return look_up<float>(tokens, table, out);
  look_up<BFloat16>(tokens, table, out);
}

void embedding_backward(const TensorView& tokens, const TensorView& dout,
                        const TensorView& dtable) {
  check_tokens(tokens, dtable.rows());
  if (dout.dtype == DType::f32) return accumulate<float>(tokens, dout, dtable);
  accumulate<BFloat16>(tokens, dout, dtable);
}

}  // namespace switchyard::kernels::cpu
