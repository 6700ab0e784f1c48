#include "kernels/cpu/recurrence/memory_gate.hpp"

#include <cmath>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

float share_of(const TensorView& gate, std::int64_t head) {
  return 1 / (1 + std::exp(-gate.as<float>()[head]));
}

template <class T>
void forward(const TensorView& memory, const TensorView& local, const TensorView& gate,
             const TensorView& out) {
  const Rows<T> a = rows_of<T>(memory), b = rows_of<T>(local), to = rows_of<T>(out);
  const std::int64_t width = memory.cols() / gate.numel();
  parallel_rows(memory.rows(), memory.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t h = 0; h < gate.numel(); ++h) {
      const float share = share_of(gate, h);
      for (std::int64_t t = begin; t < end; ++t)
        for (std::int64_t c = h * width; c < (h + 1) * width; ++c)
          put(share * value_of(a[t][c]) + (1 - share) * value_of(b[t][c]), to[t][c]);
    }
  });
}

// A head is one piece, so that the sum over its tokens has an order.
template <class T>
void backward(const TensorView& dout, const TensorView& memory, const TensorView& local,
              const TensorView& gate, const TensorView& dmemory, const TensorView& dlocal,
              const TensorView& dgate) {
  const Rows<T> a = rows_of<T>(memory), b = rows_of<T>(local), from = rows_of<T>(dout);
  const Rows<T> da = rows_of<T>(dmemory), db = rows_of<T>(dlocal);
  const std::int64_t width = memory.cols() / gate.numel();
  for_each_piece(gate.numel(), [&](std::int64_t h, int) {
    const float share = share_of(gate, h);
    double sum = 0;
    for (std::int64_t t = 0; t < memory.rows(); ++t) {
      float of_token = 0;
      for (std::int64_t c = h * width; c < (h + 1) * width; ++c) {
        const float gradient = value_of(from[t][c]);
        of_token += gradient * (value_of(a[t][c]) - value_of(b[t][c]));
        put(share * gradient, da[t][c]);
        put((1 - share) * gradient, db[t][c]);
      }
      sum += static_cast<double>(of_token);
    }
    dgate.as<float>()[h] += share * (1 - share) * static_cast<float>(sum);
  });
}

}  // namespace

void memory_gate_forward(const TensorView& memory, const TensorView& local, const TensorView& gate,
                         const TensorView& out) {
  if (memory.dtype == DType::f32)
    forward<float>(memory, local, gate, out);
  else
    forward<BFloat16>(memory, local, gate, out);
}

void memory_gate_backward(const TensorView& dout, const TensorView& memory, const TensorView& local,
                          const TensorView& gate, const TensorView& dmemory,
                          const TensorView& dlocal, const TensorView& dgate) {
  if (memory.dtype == DType::f32)
    backward<float>(dout, memory, local, gate, dmemory, dlocal, dgate);
  else
    backward<BFloat16>(dout, memory, local, gate, dmemory, dlocal, dgate);
}

}  // namespace switchyard::kernels::cpu
