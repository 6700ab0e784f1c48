// How fast attention runs on a card, and whether the kernels for Hopper's matrix units agree with
// those for any card, in the card's own memory. Prints one table; ends with 1 if they do not agree.
// FLOPs are counted as 4 D a pair of a query and a key that it sees forward, 10 D backward.
#include <fmt/core.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>

#include "kernels/attention/attention.hpp"
#include "kernels/cuda/attention/attention_general.hpp"
#include "kernels/cuda/attention/attention_hopper.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/products/linear.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tests/support/card_timer.hpp"

namespace switchyard::test {
namespace {

using kernels::AttentionShape;
using kernels::Merge;

class Card {
 public:
  Card() : device_(make_cuda_device(0)) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (float& value : normals_) value = normal(generator);
  }

  Device& device() { return *device_; }
  Tensor empty(DType dtype, Shape shape) { return {*device_, Purpose::workspace, dtype, shape}; }
  Tensor random(DType dtype, Shape shape, float factor = 1.0f);
  double median_seconds(const std::function<void()>& run) const { return timer_.seconds(run); }

 private:
  std::unique_ptr<Device> device_;
  std::vector<float> normals_ = std::vector<float>((1 << 20) + 13);
  std::size_t next_normal_ = 0;
  CardTimer timer_{*device_};
};

// Normal numbers, of which a million repeat.
Tensor Card::random(DType dtype, Shape shape, float factor) {
  next_normal_ += 1009;  // no two tensors alike
  const auto normal = [&](std::int64_t i) {
    return factor * normals_[(next_normal_ + static_cast<std::size_t>(i)) % normals_.size()];
  };
  Tensor tensor = empty(dtype, shape);
  if (dtype == DType::f32) {
    std::vector<float> values(static_cast<std::size_t>(tensor->numel()));
    for (std::int64_t i = 0; float& value : values) value = normal(i++);
    kernels::copy_from_host<float>(values, tensor->flat());
  } else {
    std::vector<BFloat16> values(static_cast<std::size_t>(tensor->numel()));
    for (std::int64_t i = 0; BFloat16 & value : values) value = to_bf16(normal(i++));
    kernels::copy_from_host<BFloat16>(values, tensor->flat());
  }
  return tensor;
}

// One sequence, causal, of bf16.
struct Problem {
  Problem(Card& card, std::int64_t length, std::int64_t heads, std::int64_t kv_heads,
          std::int64_t head_dim, std::int64_t window)
      : shape{.num_sequences = 1,
              .query_length = length,
              .key_length = length,
              .num_heads = heads,
              .num_kv_heads = kv_heads,
              .head_dim = head_dim,
              .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))},
        first(card.empty(DType::i32, {length})),
        end(card.empty(DType::i32, {length})),
        ranges(kernels::causal_ranges({.num_sequences = 1,
                                       .query_length = length,
                                       .key_length = length,
                                       .query_offset = 0,
                                       .window = window},
                                      first, end)),
        q(card.random(DType::bf16, {length, heads * head_dim})),
        k(card.random(DType::bf16, {length, kv_heads * head_dim})),
        v(card.random(DType::bf16, k->shape)),
        dout(card.random(DType::bf16, q->shape)),
        out(card.empty(DType::bf16, q->shape)),
        dq(card.empty(DType::bf16, q->shape)),
        dk(card.empty(DType::bf16, k->shape)),
        dv(card.empty(DType::bf16, k->shape)),
        lse(card.empty(DType::f32, {length, heads})),
        delta(card.empty(DType::f32, {length, heads})),
        workspace(card.empty(DType::u8, {kernels::attention_workspace_bytes(
                                            shape, DType::bf16, card.device().target())})),
        gradients{.dq = dq, .dk = dk, .dv = dv} {}

  void forward() const {
    kernels::attention_forward(shape, q, k, v, ranges, out, lse, Merge::replace, workspace);
  }
  void backward() const {
    kernels::attention_delta(out, dout, shape.head_dim, delta);
    kernels::attention_backward(shape, q, k, v, ranges, lse, delta, dout, gradients, workspace);
  }
  kernels::cuda::BackwardCall call() const {
    return {shape, q, k, v, ranges, lse, delta, dout, gradients};
  }
  double flops(double products) const {
    return 2 * products * static_cast<double>(shape.head_dim * shape.num_heads) * ranges.num_pairs;
  }

  AttentionShape shape;
  Tensor first, end;
  kernels::KeyRanges ranges;
  Tensor q, k, v, dout, out, dq, dk, dv, lse, delta, workspace;
  kernels::AttentionGradients gradients;
};

std::vector<double> doubles(const TensorView& view) {
  std::vector<double> values;
  if (view.dtype == DType::f32)
    for (const float value : kernels::HostContents<float>(view).span())
      values.push_back(static_cast<double>(value));
  else
    for (const BFloat16 value : kernels::HostContents<BFloat16>(view).span())
      values.push_back(static_cast<double>(to_float(value)));
  return values;
}

// |a - b| / |b| in the Euclidean norm; not a number if either holds one.
double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  double norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(sum / norm);
}

bool agree(Card& card) {
  bool all_agree = true;
  for (const std::int64_t head_dim : {64, 128})
    for (const std::int64_t window : {0, 100}) {
      const Problem p(card, 1000, 8, 2, head_dim, window);
      if (!kernels::cuda::can_attend_on_hopper(p.shape, p.q, p.k, p.v, p.out)) {
        fmt::print("not a Hopper card: head_dim {} runs on the kernels for any\n", head_dim);
        continue;
      }
      const auto results = [&] {
        std::vector<std::vector<double>> all;
        for (const Tensor* x : {&p.out, &p.lse, &p.dq, &p.dk, &p.dv}) all.push_back(doubles(*x));
        return all;
      };
      const auto on_hopper = [&](bool takes_turns, int keys_of_tile) {
        kernels::cuda::attention_forward_hopper(p.shape, p.q, p.k, p.v, p.ranges, p.out, p.lse,
                                                Merge::replace, takes_turns);
        kernels::attention_delta(p.out, p.dout, head_dim, p.delta);
        kernels::cuda::query_gradients_hopper(p.call(), keys_of_tile);
        kernels::cuda::key_gradients_hopper(p.call());
        return results();
      };
      const auto one_way = on_hopper(false, 64), other_way = on_hopper(true, 128);
      kernels::cuda::attention_forward_general(p.shape, p.q, p.k, p.v, p.ranges, p.out, p.lse,
                                               Merge::replace);
      kernels::attention_delta(p.out, p.dout, head_dim, p.delta);
      kernels::cuda::attention_backward_general(p.shape, p.q, p.k, p.v, p.ranges, p.lse, p.delta,
                                                p.dout, p.gradients);
      const auto on_any = results();
      constexpr const char* names[] = {"out", "lse", "dq", "dk", "dv"};
      for (std::size_t i = 0; i < on_any.size(); ++i) {
        const double tolerance = i == 1 ? 1e-5 : i == 0 ? 1.0 / 256 : 4.0 / 256;  // bf16 rounding
        const double error = difference(one_way[i], on_any[i]);
        const double other_error = difference(other_way[i], on_any[i]);
        if (error <= tolerance && other_error <= tolerance) continue;
        all_agree = false;
        fmt::print("DIFFERENT: {} of head_dim {}, window {}: {:.3g}, {:.3g}\n", names[i], head_dim,
                   window, error, other_error);
      }
    }
  return all_agree;
}

double dense_rate(Card& card) {
  constexpr std::int64_t n = 8192;
  const Tensor x = card.random(DType::bf16, {n, n}), y = card.empty(DType::bf16, {n, n});
  const Tensor w = card.random(DType::f32, {n, n}, 0.02f);
  kernels::PackedWeight weight(card.device(), n, n, DType::bf16, false);
  weight.pack(w);
  return 2.0 * n * n * n / card.median_seconds([&] { kernels::linear_forward(x, weight, y); });
}

void time_all(Card& card) {
  const double dense = dense_rate(card);
  fmt::print("product 8192^3: {:.0f} TFLOP/s\n", dense * 1e-12);
  const auto time = [&](const Problem& p, const char* pass, double products, const auto& run) {
    const double seconds = card.median_seconds(run);
    const double rate = p.flops(products) / seconds;
    fmt::print("{:<9} {:>9.1f} us {:>6.0f} TFLOP/s {:>5.1f} % of the product\n", pass,
               seconds * 1e6, rate * 1e-12, 100 * rate / dense);
  };
  struct Size {
    std::int64_t length, head_dim, window;
  };
  for (const Size& size : {Size{4096, 128, 0}, Size{8192, 128, 0}, Size{16384, 128, 0},
                           Size{8192, 128, 1024}, Size{16384, 128, 1024}, Size{8192, 64, 0}}) {
    const Problem p(card, size.length, 32, 8, size.head_dim, size.window);
    fmt::print("length {}, head_dim {}, 32 heads, 8 kv heads, {}\n", size.length, size.head_dim,
               size.window > 0 ? fmt::format("window {}", size.window) : "causal");
    time(p, "forward", 2, [&] { p.forward(); });
    time(p, "backward", 5, [&] { p.backward(); });
    if (!kernels::cuda::can_differentiate_on_hopper(p.call())) continue;
    for (const bool turns : {false, true})
      time(p, turns ? "  turns" : "  free", 2, [&] {
        kernels::cuda::attention_forward_hopper(p.shape, p.q, p.k, p.v, p.ranges, p.out, p.lse,
                                                Merge::replace, turns);
      });
    for (const int keys : {64, 128})
      time(p, keys == 64 ? "  dq 64" : "  dq 128", 3,
           [&] { kernels::cuda::query_gradients_hopper(p.call(), keys); });
    time(p, "  dk, dv", 4, [&] { kernels::cuda::key_gradients_hopper(p.call()); });
  }
}

}  // namespace
}  // namespace switchyard::test

int main() {
  if (switchyard::num_cuda_cards() == 0) {
    fmt::print("no GPU: nothing was measured\n");
    return 77;
  }
  switchyard::test::Card card;
  const bool agree = switchyard::test::agree(card);
  fmt::print("attention on the matrix units {} with that in fp32 arithmetic\n",
             agree ? "agrees" : "DOES NOT AGREE");
  switchyard::test::time_all(card);
  return agree ? 0 : 1;
}
