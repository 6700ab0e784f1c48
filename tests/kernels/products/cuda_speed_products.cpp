// How fast products run on a card, and whether those on its matrix units agree with the kernel for
// any card. Prints one table; ends with 1 if they do not agree.
#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>

#include "kernels/cuda/products/group_product.hpp"
#include "kernels/products/grouped_linear.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tensor/cuda/runtime.hpp"
#include "tests/support/card_timer.hpp"

namespace switchyard::test {
namespace {

using cuda::check;
using kernels::Accumulate;
using kernels::PackedWeight;
using kernels::cuda::GroupProduct;
using Offsets = std::vector<std::int32_t>;

enum class Pass : std::uint8_t { forward, backward_input, backward_weight };
constexpr Pass all_passes[] = {Pass::forward, Pass::backward_input, Pass::backward_weight};

// Of all of a dense view, after the work on it.
template <class T>
void to_card(const std::vector<T>& values, const TensorView& view) {
  const cudaStream_t stream = cuda::native(view.device->compute_stream());
  check(cudaMemcpyAsync(view.data, values.data(), values.size() * sizeof(T), cudaMemcpyDefault,
                        stream));
  check(cudaStreamSynchronize(stream));
}
template <class T>
std::vector<T> from_card(const TensorView& view) {
  std::vector<T> values(static_cast<std::size_t>(view.numel()));
  const cudaStream_t stream = cuda::native(view.device->compute_stream());
  check(cudaMemcpyAsync(values.data(), view.data, values.size() * sizeof(T), cudaMemcpyDefault,
                        stream));
  check(cudaStreamSynchronize(stream));
  return values;
}

const char* name_of(Pass pass) {
  constexpr const char* names[] = {"forward", "dX", "dW"};
  return names[static_cast<int>(pass)];
}

class Products {
 public:
  Products() : device_(make_cuda_device(0)), timer_(*device_) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (float& value : normals_) value = normal(generator);
  }

  bool agree();
  void time_all();

 private:
  // Operands of grouped products [out, in].
  struct Groups {
    Tensor x, dy, y, dx, dw, offsets;
    std::vector<PackedWeight> weights;
  };

  Tensor random(DType dtype, Shape shape, float factor = 1.0f);
  Groups groups(const Offsets& offsets, std::int64_t out, std::int64_t in, DType result);
  static GroupProduct product(const Groups& groups, Pass pass, Accumulate accumulate);
  static double difference(const TensorView& a, const TensorView& b);
  double time_dense(std::int64_t rows, std::int64_t out, std::int64_t in);
  void time_groups(const char* name, const Offsets& offsets, std::int64_t out, std::int64_t in);
  void print(const std::string& what, Pass pass, double flops, double seconds) const;

  std::unique_ptr<Device> device_;
  std::vector<float> normals_ = std::vector<float>((1 << 20) + 13);
  std::size_t next_normal_ = 0;
  CardTimer timer_;
  double dense_rate_ = 0;
};

// Normal numbers, of which a million repeat.
Tensor Products::random(DType dtype, Shape shape, float factor) {
  Tensor tensor(*device_, Purpose::workspace, dtype, shape);
  const TensorView all = tensor.view().flat();
  const std::int64_t count = std::min(all.numel(), std::ssize(normals_));
  const auto fill = [&]<class T>(const std::vector<T>& values) {
    const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
    to_card(values, all.slice_rows(0, count));
    std::byte* data = all.data;
    for (std::int64_t at = bytes; at < all.num_bytes(); at += bytes)
      check(cudaMemcpyAsync(data + at, data,
                            static_cast<std::size_t>(std::min(bytes, all.num_bytes() - at)),
                            cudaMemcpyDeviceToDevice, cuda::native(device_->compute_stream())));
  };
  std::vector<float> values(static_cast<std::size_t>(count));
  next_normal_ += 1009;  // no two tensors alike
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = factor * normals_[(next_normal_ + i) % normals_.size()];
  if (dtype == DType::f32) {
    fill(values);
  } else {
    std::vector<BFloat16> rounded(values.size());
    std::ranges::transform(values, rounded.begin(), [](float value) { return to_bf16(value); });
    fill(rounded);
  }
  return tensor;
}

Products::Groups Products::groups(const Offsets& offsets, std::int64_t out, std::int64_t in,
                                  DType result) {
  const std::int64_t rows = offsets.back() + 7;  // some are not in use
  const std::int64_t count = std::ssize(offsets) - 1;
  Groups g;
  g.x = random(DType::bf16, {rows, in});
  g.dy = random(DType::bf16, {rows, out});
  g.y = random(result, {rows, out});
  g.dx = random(result, {rows, in});
  g.dw = random(DType::f32, {count, out, in});
  g.offsets = Tensor(*device_, Purpose::workspace, DType::i32, {count + 1});
  to_card(offsets, g.offsets);
  const Tensor weight = random(DType::f32, {out + count, in}, 0.02f);
  for (std::int64_t e = 0; e < count; ++e) {
    g.weights.emplace_back(*device_, out, in, DType::bf16);
    g.weights.back().pack(weight->slice_rows(e, e + out));
  }
  return g;
}

GroupProduct Products::product(const Groups& g, Pass pass, Accumulate accumulate) {
  if (pass == Pass::forward)
    return {.rows = g.x,
            .offsets = g.offsets,
            .weights = g.weights,
            .other_rows = {},
            .result = g.y,
            .accumulate = Accumulate::no};
  if (pass == Pass::backward_input)
    return {.rows = g.dy,
            .offsets = g.offsets,
            .weights = g.weights,
            .other_rows = {},
            .result = g.dx,
            .accumulate = accumulate};
  return {.rows = g.dy,
          .offsets = g.offsets,
          .weights = {},
          .other_rows = g.x,
          .result = g.dw,
          .accumulate = Accumulate::yes};
}

std::vector<double> doubles(const TensorView& view) {
  std::vector<double> values;
  if (view.dtype == DType::f32)
    for (const float value : from_card<float>(view)) values.push_back(static_cast<double>(value));
  else
    for (const BFloat16 value : from_card<BFloat16>(view))
      values.push_back(static_cast<double>(to_float(value)));
  return values;
}

// |a - b| / |b| in the Euclidean norm; not a number if either holds one.
double Products::difference(const TensorView& a, const TensorView& b) {
  const std::vector<double> of_a = doubles(a), of_b = doubles(b);
  double sum = 0;
  double norm = 0;
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    sum += (of_a[i] - of_b[i]) * (of_a[i] - of_b[i]);
    norm += of_b[i] * of_b[i];
  }
  return std::sqrt(sum / norm);
}

Offsets offsets_of(const std::vector<std::int32_t>& sizes) {
  Offsets offsets{0};
  for (const std::int32_t size : sizes) offsets.push_back(offsets.back() + size);
  return offsets;
}

bool Products::agree() {
  const std::vector<std::vector<std::int32_t>> all_sizes = {
      {0, 1, 127, 128, 129, 0, 63, 64, 65, 300, 0}, {700}, {5, 0, 0, 1}, {0, 0, 0}};
  const std::pair<std::int64_t, std::int64_t> shapes[] = {
      {64, 192}, {192, 64}, {768, 1024}, {264, 520}, {2048, 768}};
  bool all_agree = true;
  for (const auto& sizes : all_sizes)
    for (const auto& [out, in] : shapes)
      for (const DType result : {DType::bf16, DType::f32}) {
        if (sizes != all_sizes.front() && out != 264) continue;
        const Groups g = groups(offsets_of(sizes), out, in, result);
        for (const Pass pass : all_passes)
          for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
            if (pass != Pass::backward_input && accumulate == Accumulate::yes) continue;
            std::vector<Tensor> results;
            for (const bool is_wgmma : {false, true, true}) {
              GroupProduct p = product(g, pass, accumulate);
              Tensor copy(*device_, Purpose::workspace, p.result.dtype, p.result.shape);
              check(cudaMemcpyAsync(
                  copy->data, p.result.data, static_cast<std::size_t>(p.result.num_bytes()),
                  cudaMemcpyDeviceToDevice, cuda::native(device_->compute_stream())));
              p.result = copy;
              if (is_wgmma && has_wgmma_product(p))
                wgmma_product(p, pass == Pass::forward);
              else
                simt_product(p, pass == Pass::forward);
              results.push_back(std::move(copy));
            }
            const double tolerance =
                results[0]->dtype == DType::bf16 ? 1.0 / 256 : 1e-5;  // one rounding; fp32 sums
            const double error = difference(results[1], results[0]);
            const bool is_repeated = doubles(results[1]) == doubles(results[2]);
            if (error <= tolerance && is_repeated) continue;
            all_agree = false;
            fmt::print("DIFFERENT: {} [{}, {}] {} groups, {} to {}{}: {:.3g}, {}\n", name_of(pass),
                       out, in, sizes.size(), switchyard::name_of(DType::bf16),
                       switchyard::name_of(results[0]->dtype),
                       accumulate == Accumulate::yes ? ", added" : "", error,
                       is_repeated ? "repeats" : "does not repeat");
          }
      }
  return all_agree;
}

void Products::print(const std::string& what, Pass pass, double flops, double seconds) const {
  fmt::print("{:<46} {:<8} {:>9.1f} us {:>7.1f} TFLOP/s {:>5.1f} % of dense\n", what, name_of(pass),
             seconds * 1e6, flops / seconds * 1e-12, 100 * flops / seconds / dense_rate_);
}

double Products::time_dense(std::int64_t rows, std::int64_t out, std::int64_t in) {
  const double flops =
      2.0 * static_cast<double>(rows) * static_cast<double>(out) * static_cast<double>(in);
  const Tensor x = random(DType::bf16, {rows, in}), dy = random(DType::bf16, {rows, out});
  const Tensor y = random(DType::bf16, {rows, out}), dx = random(DType::bf16, {rows, in});
  const Tensor w = random(DType::f32, {out, in}, 0.02f), dw = random(DType::f32, {out, in});
  PackedWeight weight(*device_, out, in, DType::bf16);
  weight.pack(w);
  const std::string what = fmt::format("dense {} rows, {} -> {}", rows, in, out);
  const double forward = timer_.seconds([&] { kernels::linear_forward(x, weight, y); });
  if (dense_rate_ == 0) dense_rate_ = flops / forward;
  print(what, Pass::forward, flops, forward);
  print(what, Pass::backward_input, flops,
        timer_.seconds([&] { kernels::linear_backward_input(dy, weight, dx); }));
  print(what, Pass::backward_weight, flops,
        timer_.seconds([&] { kernels::linear_backward_weight(dy, x, dw); }));
  return flops / forward;
}

void Products::time_groups(const char* name, const Offsets& offsets, std::int64_t out,
                           std::int64_t in) {
  const Groups g = groups(offsets, out, in, DType::bf16);
  const double flops = 2.0 * static_cast<double>(offsets.back()) * static_cast<double>(out) *
                       static_cast<double>(in);
  for (const Pass pass : all_passes) {
    const GroupProduct p = product(g, pass, Accumulate::no);
    const bool is_wgmma = has_wgmma_product(p);
    print(fmt::format("{} x {} -> {}, {} ({})", offsets.size() - 1, in, out, name,
                      is_wgmma ? "wgmma" : "any card"),
          pass, flops, timer_.seconds([&] {
            if (is_wgmma)
              wgmma_product(p, pass == Pass::forward);
            else
              simt_product(p, pass == Pass::forward);
          }));
  }
}

void Products::time_all() {
  constexpr std::int32_t rows = 32768;
  time_dense(8192, 8192, 8192);
  time_dense(rows, 2048, 2048);
  time_dense(rows, 50304, 2048);
  // Shares of rows as a router without a balancing loss gives them: the largest group has several
  // times the mean, some have few.
  const auto skewed = [&](int groups) {
    std::vector<double> shares;
    double sum = 0;
    for (int g = 0; g < groups; ++g) {
      shares.push_back(std::exp(0.8 * std::sin(7.0 * g) + 0.6 * std::cos(3.0 * g + 1)));
      sum += shares.back();
    }
    std::vector<std::int32_t> sizes;
    for (const double share : shares)
      sizes.push_back(static_cast<std::int32_t>(share / sum * rows));
    sizes.back() += rows - offsets_of(sizes).back();
    return offsets_of(sizes);
  };
  const auto balanced = [&](int groups) {
    return offsets_of(std::vector<std::int32_t>(static_cast<std::size_t>(groups), rows / groups));
  };
  time_groups("balanced", balanced(64), 2048, 2048);
  time_groups("skewed", skewed(64), 2048, 2048);
  time_groups("balanced", balanced(64), 2048, 1024);
  time_groups("skewed", skewed(64), 2048, 1024);
  time_groups("balanced", balanced(128), 2048, 768);
  time_groups("skewed", skewed(128), 2048, 768);
}

}  // namespace
}  // namespace switchyard::test

int main() {
  if (switchyard::num_cuda_cards() == 0) {
    fmt::print("no GPU: nothing was measured\n");
    return 77;
  }
  switchyard::test::Products products;
  const bool agree = products.agree();
  fmt::print("grouped products on the matrix units {} with those in fp32 arithmetic\n",
             agree ? "agree" : "DO NOT AGREE");
  products.time_all();
  return agree ? 0 : 1;
}
