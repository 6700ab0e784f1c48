#include "kernels/recurrence/short_convolution.hpp"

#include <algorithm>
#include <functional>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::ConvolutionShape;
using reference::numerical_gradient;

constexpr std::int64_t num_sequences = 2, length = 13;

struct Problem {
  std::vector<PositionRange> held, read;
  std::vector<std::vector<std::int32_t>> starts;
  std::int64_t channels, width;

  ConvolutionShape shape() const {
    return {.num_sequences = num_sequences,
            .held = held,
            .read = read,
            .channels = channels,
            .width = width,
            .document_starts = starts};
  }
  std::int64_t num_read() const { return num_positions(read); }
};

// All rows of whole sequences, in one document each; documents; two runs with their halos, one of
// them shorter than it.
std::vector<Problem> problems() {
  std::vector<Problem> all;
  for (const std::int64_t channels : {1, 5, 70})
    for (const std::int64_t width : {1, 4}) {
      const std::vector<PositionRange> whole = {{0, length}};
      all.push_back({whole, whole, {}, channels, width});
      all.push_back({whole, whole, {{2, 3, 9}, {}}, channels, width});
      const std::vector<PositionRange> runs = {{2, 3}, {9, 2}};
      all.push_back({runs, kernels::convolved_positions(runs, width), {{3}, {}}, channels, width});
    }
  return all;
}

// Token by token, from the rows that are there.
Doubles convolve(const Problem& p, const Doubles& x, const Doubles& weight, const Doubles& bias) {
  Doubles y;
  for (std::int64_t s = 0; s < num_sequences; ++s)
    for (const PositionRange& range : p.held)
      for (std::int64_t t = range.begin; t < range.end(); ++t) {
        std::int64_t document = 0;
        if (!p.starts.empty())
          for (const std::int32_t start : p.starts[static_cast<std::size_t>(s)])
            if (start <= t) document = start;
        for (std::int64_t c = 0; c < p.channels; ++c) {
          double sum = bias[static_cast<std::size_t>(c)];
          for (std::int64_t j = 0; j < p.width && t - j >= document; ++j)
            sum += weight[static_cast<std::size_t>(c * p.width + p.width - 1 - j)] *
                   x[static_cast<std::size_t>(
                       (s * p.num_read() + count_before(p.read, t - j)) * p.channels + c)];
          y.push_back(sum);
        }
      }
  return y;
}

void for_each_problem(const std::function<void(const Problem&, DType)>& body) {
  for (const Problem& p : problems())
    for (const DType dtype : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(testing::Message() << name_of(dtype) << " channels " << p.channels << " width "
                                      << p.width << " runs " << p.held.size());
      body(p, dtype);
    }
}

TEST(ShortConvolution, ForwardIsTheFormula) {
  for_each_problem([](const Problem& p, DType dtype) {
    const Operand x(dtype, num_sequences * p.num_read(), p.channels, 1, 3);
    const Operand y(dtype, num_sequences * num_positions(p.held), p.channels, 2, 1);
    const Operand weight(DType::f32, p.channels, p.width, 3), bias = vector_of(p.channels, 4);
    short_convolution_forward(p.shape(), x, weight.view().flat(), bias.view().flat(), y);
    expect_close(y, convolve(p, x.values(), weight.values(), bias.values()), tolerance_of(dtype));
    short_convolution_forward(p.shape(), x, weight.view().flat(), {}, y);
    expect_close(y, convolve(p, x.values(), weight.values(), Doubles(bias.values().size(), 0.0)),
                 tolerance_of(dtype));
  });
}

TEST(ShortConvolution, BackwardIsTheGradient) {
  for_each_problem([](const Problem& p, DType dtype) {
    if (p.channels > 5) return;  // finite differences take long
    const Operand x(dtype, num_sequences * p.num_read(), p.channels, 1, 3);
    const Operand dy(dtype, num_sequences * num_positions(p.held), p.channels, 2, 1);
    const Operand weight(DType::f32, p.channels, p.width, 3), bias = vector_of(p.channels, 4);
    const Operand dx(DType::f32, num_sequences * p.num_read(), p.channels, 5, 2);
    const Operand dweight(DType::f32, p.channels, p.width, 6), dbias = vector_of(p.channels, 7);
    const Doubles dweight_before = dweight.values(), dbias_before = dbias.values();
    short_convolution_backward(p.shape(), dy, x, weight.view().flat(), dx, dweight.view().flat(),
                               dbias.view().flat());
    const auto loss = [&](const Doubles& xs, const Doubles& ws, const Doubles& bs) {
      return reference::dot(convolve(p, xs, ws, bs), dy.values());
    };
    const auto plus = [](Doubles a, const Doubles& b) {
      for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
      return a;
    };
    expect_close(dx,
                 numerical_gradient(
                     [&](const Doubles& at) { return loss(at, weight.values(), bias.values()); },
                     x.values()),
                 1e-5);
    expect_close(dweight,
                 plus(numerical_gradient(
                          [&](const Doubles& at) { return loss(x.values(), at, bias.values()); },
                          weight.values()),
                      dweight_before),
                 1e-5);
    expect_close(dbias,
                 plus(numerical_gradient(
                          [&](const Doubles& at) { return loss(x.values(), weight.values(), at); },
                          bias.values()),
                      dbias_before),
                 1e-5);
  });
}

TEST(ShortConvolution, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Problem p = problems().back();
    const Operand x(DType::f32, num_sequences * p.num_read(), p.channels, 1);
    const Operand y(DType::f32, num_sequences * num_positions(p.held), p.channels, 2);
    const Operand weight(DType::f32, p.channels, p.width, 3);
    const Operand dx(DType::f32, x.view().rows(), p.channels),
        dweight(DType::f32, p.channels, p.width);
    dweight.set(Doubles(dweight.values().size(), 0.0));
    short_convolution_backward(p.shape(), y, x, weight.view().flat(), dx, dweight.view().flat(),
                               {});
    short_convolution_forward(p.shape(), x, weight.view().flat(), {}, y);
    return std::vector<Doubles>{y.values(), dx.values(), dweight.values()};
  });
}

TEST(ShortConvolution, RowsThatAreNotThereAreRefused) {
  Problem p = problems().back();
  p.read = p.held;
  const Operand x(DType::f32, num_sequences * p.num_read(), p.channels, 1);
  const Operand y(DType::f32, num_sequences * p.num_read(), p.channels, 2);
  const Operand weight(DType::f32, p.channels, p.width, 3);
  expect_refused([&] { short_convolution_forward(p.shape(), x, weight.view().flat(), {}, y); });
}

}  // namespace
}  // namespace switchyard::test
