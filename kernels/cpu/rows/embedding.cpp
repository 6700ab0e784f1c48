#include "kernels/cpu/rows/embedding.hpp"

#include <cstring>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/elementwise.hpp"
#include "kernels/cpu/sums/fixed_point.hpp"
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

// Columns of a thread, so that no two write one cache line.
std::int64_t columns_of_thread(std::int64_t cols) {
  constexpr std::int64_t line = 64;  // elements
  const std::int64_t share = (cols + num_threads() - 1) / num_threads();
  return (share + line - 1) / line * line;
}

// Threads share the columns, so each row of the table receives its tokens in order.
template <class T>
void accumulate(const TensorView& tokens, const TensorView& dout, const TensorView& dtable) {
  const std::int64_t width = columns_of_thread(dout.cols());
  const std::int32_t* token = tokens.as<std::int32_t>();
  const Rows<T> from = rows_of<T>(dout);
  const Rows<float> to = rows_of<float>(dtable);
  parallel_blocks(dout.cols(), width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < dout.rows(); ++t)
      accumulate_span(to[token[t]] + begin, from[t] + begin, end - begin);
  });
}

template <class T>
void accumulate_exactly(const TensorView& tokens, const TensorView& dout,
                        const GradientSum& dtable) {
  const FixedScale rule(dtable.exact, dtable.exact.unit_rows);
  const std::int32_t* token = tokens.as<std::int32_t>();
  const Rows<T> from = rows_of<T>(dout);
  const Rows<std::int64_t> to = rows_of<std::int64_t>(dtable.view);
  parallel_blocks(
      dout.cols(), columns_of_thread(dout.cols()), [&](std::int64_t begin, std::int64_t end) {
        bool all_fit = true;
        for (std::int64_t t = 0; t < dout.rows(); ++t)
          all_fit &= add_fixed(from[t] + begin, end - begin, rule, to[token[t]] + begin);
        if (!all_fit) tell_overflow(dtable.exact);
      });
}

}  // namespace

void embedding_forward(const TensorView& tokens, const TensorView& table, const TensorView& out) {
  check_tokens(tokens, table.rows());
  if (out.dtype == DType::f32) return look_up<float>(tokens, table, out);
  look_up<BFloat16>(tokens, table, out);
}

void embedding_backward(const TensorView& tokens, const TensorView& dout,
                        const GradientSum& dtable) {
  check_tokens(tokens, dtable.view.rows());
  const bool is_f32 = dout.dtype == DType::f32;
  if (dtable.is_exact())
    return is_f32 ? accumulate_exactly<float>(tokens, dout, dtable)
                  : accumulate_exactly<BFloat16>(tokens, dout, dtable);
  if (is_f32) return accumulate<float>(tokens, dout, dtable.view);
  accumulate<BFloat16>(tokens, dout, dtable.view);
}

}  // namespace switchyard::kernels::cpu
