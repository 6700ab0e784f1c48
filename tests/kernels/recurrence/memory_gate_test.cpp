#include "kernels/recurrence/memory_gate.hpp"

#include <cmath>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t heads = 3;

Doubles mixed(const Doubles& memory, const Doubles& local, const Doubles& gate, std::size_t width) {
  Doubles out;
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const double share = 1 / (1 + std::exp(-gate[i / width % heads]));
    out.push_back(share * memory[i] + (1 - share) * local[i]);
  }
  return out;
}

TEST(MemoryGate, IsTheFormulaAndItsGradientAlsoInPlace) {
  for_each_case([](const Case& c) {
    const std::int64_t cols = heads * c.cols;
    const Operand memory(c.dtype, c.rows, cols, 1, c.gap), local(c.dtype, c.rows, cols, 2, c.gap);
    const Operand out(c.dtype, c.rows, cols, 3, c.gap), gate = vector_of(heads, 4);
    const auto width = static_cast<std::size_t>(c.cols);
    kernels::memory_gate_forward(memory, local, gate.view().flat(), out);
    expect_close(out, mixed(memory.values(), local.values(), gate.values(), width),
                 tolerance_of(c.dtype));

    const Operand dout(c.dtype, c.rows, cols, 5, c.gap), dlocal(c.dtype, c.rows, cols, 6, c.gap);
    const Operand dgate = vector_of(heads, 7);
    const Doubles gradient = dout.values(), before = dgate.values(), shares = gate.values();
    kernels::memory_gate_backward(dout, memory, local, gate.view().flat(), dout, dlocal,
                                  dgate.view().flat());
    Doubles zeros(gradient.size(), 0.0);
    expect_close(dout, mixed(gradient, zeros, shares, width), tolerance_of(c.dtype));
    expect_close(dlocal, mixed(zeros, gradient, shares, width), tolerance_of(c.dtype));
    const Doubles slopes = reference::numerical_gradient(
        [&](const Doubles& at) {
          return reference::dot(mixed(memory.values(), local.values(), at, width), gradient);
        },
        shares);
    Doubles wanted = before;
    for (std::size_t h = 0; h < wanted.size(); ++h) wanted[h] += slopes[h];
    // A sum over all tokens and columns of a head.
    expect_close(dgate, wanted, 1e-5 * std::sqrt(static_cast<double>(c.rows * c.cols)));
  });
}

}  // namespace
}  // namespace switchyard::test
