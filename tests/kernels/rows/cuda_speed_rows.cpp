// How fast the kernels that memory bounds run on a card, at sizes of training. Prints one table.
#include <fmt/core.h>

#include <array>
#include <cmath>
#include <random>

#include "kernels/host_copy.hpp"
#include "kernels/rows/cross_entropy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/embedding.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "kernels/rows/rope.hpp"
#include "kernels/rows/swiglu.hpp"
#include "kernels/sums/adamw.hpp"
#include "kernels/sums/sums.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tests/support/card_timer.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

class Bench {
 public:
  Bench() : device_(make_cuda_device(0)), timer_(*device_) {}

  void run() {
    for (const std::int64_t rows : {16384, 32768}) {
      norms(rows);
      activations(rows);
      embedding(rows);
      positions(rows);
    }
    loss();
    optimizer();
  }

 private:
  Tensor zeros(DType dtype, Shape shape) {
    return Tensor(*device_, Purpose::workspace, dtype, shape);
  }
  // Uniform in [-1, 1).
  Tensor random(DType dtype, Shape shape) {
    Tensor tensor = zeros(dtype, shape);
    std::mt19937 generator(1);
    std::vector<float> values(std::size_t{1} << 20);
    for (float& value : values) value = static_cast<float>(generator()) * 0x1p-31f - 1;
    const Tensor block = zeros(DType::f32, {std::ssize(values)});
    kernels::copy_from_host<float>(values, block);
    const TensorView all = tensor.view().flat();
    for (std::int64_t at = 0; at < all.numel(); at += block->numel()) {
      const std::int64_t end = std::min(at + block->numel(), all.numel());
      kernels::copy(block->slice_rows(0, end - at), all.slice_rows(at, end));
    }
    return tensor;
  }
  static double bytes(const TensorView& view) { return static_cast<double>(view.num_bytes()); }

  void norms(std::int64_t rows) {
    const std::string size = fmt::format("{} x {} bf16", rows, hidden);
    const Tensor x = random(DType::bf16, {rows, hidden}),
                 delta = random(DType::bf16, {rows, hidden});
    const Tensor y = zeros(DType::bf16, {rows, hidden}), sum = zeros(DType::bf16, {rows, hidden});
    const Tensor weight = random(DType::f32, {hidden}), dweight = zeros(DType::f32, {hidden});
    const Tensor rstd = zeros(DType::f32, {rows});
    const Tensor scratch = zeros(DType::u8, {kernels::rms_norm_workspace_bytes(*device_, hidden)});
    timer_.time("rms_norm_forward", size, 2 * bytes(x),
                [&] { kernels::rms_norm_forward(x, weight, 1e-5f, y, rstd); });
    timer_.time("add_rms_norm_forward", size, 4 * bytes(x),
                [&] { kernels::add_rms_norm_forward(x, delta, weight, 1e-5f, sum, y, rstd); });
    timer_.time("rms_norm_backward", size, 3 * bytes(x), [&] {
      kernels::rms_norm_backward(delta, x, weight, rstd, {}, y, dweight, scratch);
    });
    timer_.time("rms_norm_backward with residual", size, 4 * bytes(x), [&] {
      kernels::rms_norm_backward(delta, x, weight, rstd, y, y, dweight, scratch);
    });
  }

  void activations(std::int64_t rows) {
    const std::string size = fmt::format("{} x {} bf16", rows, hidden);
    const Tensor gate_up = random(DType::bf16, {rows, 2 * hidden});
    const Tensor d_gate_up = zeros(DType::bf16, {rows, 2 * hidden});
    const Tensor act = zeros(DType::bf16, {rows, hidden}),
                 d_act = random(DType::bf16, {rows, hidden});
    timer_.time("swiglu_forward", size, 3 * bytes(act),
                [&] { kernels::swiglu_forward(gate_up, act); });
    timer_.time("swiglu_backward", size, 6 * bytes(act),
                [&] { kernels::swiglu_backward(d_act, gate_up, d_gate_up, act); });
    timer_.time("add", size, 3 * bytes(act), [&] { kernels::add(act, d_act, act); });
    const Tensor at = zeros(DType::i32, {rows}), ids = zeros(DType::i64, {1});
    timer_.time("dropout", size, 2 * bytes(act), [&] {
      kernels::dropout(act, 0.1f, {.sequence_length = rows, .positions = at}, ids);
    });
    const Tensor wide = zeros(DType::f32, {rows, hidden});
    timer_.time("copy f32 to bf16", size, bytes(wide) + bytes(act),
                [&] { kernels::copy(wide, act); });
  }

  // Words as they come in texts: the r-th most frequent with a share of about 1 / r.
  void embedding(std::int64_t rows) {
    constexpr std::int64_t vocab_size = 50304;
    const std::string size = fmt::format("{} of {} x {}", rows, vocab_size, hidden);
    std::mt19937 generator(2);
    std::vector<std::int32_t> words;
    for (std::int64_t t = 0; t < rows; ++t)
      words.push_back(static_cast<std::int32_t>(
                          std::pow(static_cast<double>(vocab_size), generator() * 0x1p-32)) -
                      1);
    const Tensor tokens = zeros(DType::i32, {rows});
    kernels::copy_from_host<std::int32_t>(words, tokens);
    std::ranges::sort(words);
    const auto distinct = static_cast<double>(std::ranges::unique(words).begin() - words.begin());
    const Tensor table = random(DType::f32, {vocab_size, hidden});
    const Tensor out = zeros(DType::bf16, {rows, hidden});
    const double table_rows = distinct * 4 * static_cast<double>(hidden);
    timer_.time("embedding_forward", size, table_rows + bytes(out),
                [&] { kernels::embedding_forward(tokens, table, out); });
    timer_.time("embedding_backward", size, 2 * table_rows + bytes(out),
                [&] { kernels::embedding_backward(tokens, out, table); });
  }

  void positions(std::int64_t rows) {
    constexpr std::int64_t head_dim = 128, heads = 16;
    const Tensor x = random(DType::bf16, {rows, heads * head_dim}), at = zeros(DType::i32, {rows});
    kernels::iota(at);
    const kernels::RopeTable table(*device_, rows, head_dim, {});
    timer_.time("rope", fmt::format("{} x {} x {} bf16", rows, heads, head_dim), 2 * bytes(x),
                [&] { kernels::rope(x, table, at, head_dim, kernels::Rotation::forward); });
  }

  void loss() {
    constexpr std::int64_t rows = 4096, cols = 50304, vocab_size = 50257;
    const Tensor logits = random(DType::f32, {rows, cols}), losses = zeros(DType::f32, {rows});
    const Tensor gradient = zeros(DType::bf16, {rows, cols}), targets = zeros(DType::i32, {rows});
    kernels::iota(targets);
    const std::string size = fmt::format("{} x {} f32", rows, cols);
    timer_.time("cross entropy", size, bytes(logits), [&] {
      kernels::softmax_cross_entropy(logits, targets, vocab_size, 1, losses, {});
    });
    timer_.time("cross entropy, gradient bf16", size, bytes(logits) + bytes(gradient), [&] {
      kernels::softmax_cross_entropy(logits, targets, vocab_size, 1, losses, gradient);
    });
    timer_.time("cross entropy, in place", size, 2 * bytes(logits), [&] {
      kernels::softmax_cross_entropy(logits, targets, vocab_size, 1, losses, logits);
    });
  }

  // 200 tensors, as a model has them: most parameters in a few, and many small ones.
  void optimizer() {
    constexpr std::int64_t large = 4'000'000, small = 2048, pairs = 100,
                           total = pairs * (large + small);
    std::array<Tensor, 4> buffers;  // value, gradient, moments
    for (Tensor& buffer : buffers) buffer = random(DType::f32, {total});
    kernels::fill_zero(buffers[3]);  // second moments are not negative
    std::vector<kernels::AdamWTensor> tensors;
    std::vector<TensorView> gradients;
    for (std::int64_t begin = 0; begin < total;) {
      const std::int64_t end = begin + (tensors.size() % 2 == 0 ? large : small);
      const auto part = [&](int i) {
        return buffers[static_cast<std::size_t>(i)]->slice_rows(begin, end);
      };
      tensors.push_back({part(0), part(1), part(2), part(3), 0.1f});
      gradients.push_back(part(1));
      begin = end;
    }
    const Tensor decision = zeros(DType::f32, {2}), norm = zeros(DType::f64, {1});
    kernels::copy_from_host<float>(std::array{1.0f, 1.0f}, decision);
    const std::string size = fmt::format("{} M in {} tensors", total / 1'000'000, tensors.size());
    timer_.time("adamw", size, 28.0 * total,
                [&] { kernels::adamw(tensors, {.learning_rate = 1e-4f, .step = 10}, decision); });
    timer_.time("add_sum_of_squares", size, 4.0 * total,
                [&] { kernels::add_sum_of_squares(gradients, norm); });
  }

  static constexpr std::int64_t hidden = 2048;
  std::unique_ptr<Device> device_;
  CardTimer timer_;
};

}  // namespace
}  // namespace switchyard::test

int main() {
  using namespace switchyard;
  if (num_cuda_cards() == 0) {
    fmt::print("no GPU: nothing was timed\n");
    return test::no_such_device;
  }
  test::Bench().run();
  return 0;
}
